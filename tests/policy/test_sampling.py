from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from mixdpo.errors import ConfigError, DataError
from mixdpo.policy import MixturePolicy

MakePolicy = Callable[..., MixturePolicy]
PROMPTS = ["the cat", "a", "the dog did not like", "the mat and the cat sat", "it"]
KINDS = ["linear", "lowrank", "independent"]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["sequence", "token", "argmax"])
def test_texts_depend_on_neither_batch_nor_padding(
    mode: str, kind: str, architecture: str, make_policy: MakePolicy
) -> None:
    policy = make_policy(kind, architecture)
    together = policy.generate(PROMPTS, mode=mode, max_new_tokens=8, seed=3)
    assert policy.generate(PROMPTS, mode=mode, max_new_tokens=8, seed=3, batch=1) == together
    assert policy.generate(PROMPTS, mode=mode, max_new_tokens=8, seed=3, batch=2) == together
    assert policy.generate(PROMPTS, mode=mode, max_new_tokens=8, seed=4) != together


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_the_likeliest_token_of_a_plain_forward_pass(
    kind: str, architecture: str, make_policy: MakePolicy
) -> None:
    policy = make_policy(kind, architecture)
    eos = policy.tokenizer.eos_token_id
    written = policy.generate(PROMPTS, expert=1, max_new_tokens=6, temperature=0)
    models = list(policy.expert_models.models())
    for prompt, text, finished in zip(PROMPTS, written.texts, written.finished, strict=True):
        ids = [policy.tokenizer.bos_token_id, *policy.tokenizer(prompt)["input_ids"]]
        start = len(ids)
        while len(ids) < start + 6 and (len(ids) == start or ids[-1] != eos):
            model, head = models[1]
            with torch.no_grad():
                states = model.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0, -1:]
                ids.append(int(model.heads.one(states, head).argmax()))
        assert finished == (ids[-1] == eos)
        assert text == policy.tokenizer.decode(ids[start : len(ids) - finished])
    assert written.experts == [1] * len(PROMPTS)


def test_a_tiny_nucleus_is_greedy(make_policy: MakePolicy) -> None:
    policy = make_policy()
    for mode in ("sequence", "token"):
        greedy = policy.generate(PROMPTS, mode=mode, max_new_tokens=8, temperature=0)
        assert policy.generate(PROMPTS, mode=mode, max_new_tokens=8, top_p=1e-9) == greedy


def completions(length: int) -> tuple[list[str], list[bool]]:
    """All texts of at most `length` letters, and whether each ended by itself."""
    ended = ["".join(word) for n in range(length) for word in itertools.product("abc", repeat=n)]
    cut = ["".join(word) for word in itertools.product("abc", repeat=length)]
    return ended + cut, [True] * len(ended) + [False] * len(cut)


@pytest.mark.parametrize("kind", ["linear", "independent"])
@pytest.mark.parametrize("mode", ["sequence", "token"])
def test_both_modes_draw_from_the_mixture(
    mode: str, kind: str, make_policy: MakePolicy, letters: PreTrainedTokenizerBase
) -> None:
    policy = make_policy(kind, tokenizer=letters, weights=[0.5, 0.3, 0.2])
    texts, finished = completions(3)
    probs = policy.mixture_logps(["ab"] * len(texts), texts, finished).exp()
    draws = 6000
    written = policy.generate(["ab"] * draws, mode=mode, max_new_tokens=3, seed=0, batch=draws)
    counts = Counter(zip(written.texts, written.finished, strict=True))
    found = torch.tensor([counts[key] for key in zip(texts, finished, strict=True)])
    assert found.sum() == draws
    # Pearson's statistic over texts expected often enough, each 1 on average; the seed is fixed
    often = probs * draws > 5
    statistic = ((found - probs * draws) ** 2 / (probs * draws))[often].sum().item()
    assert often.sum() > 10
    assert statistic < 1.7 * int(often.sum())


def test_sequences_are_written_by_experts_drawn_from_the_weights(make_policy: MakePolicy) -> None:
    policy = make_policy(weights=[0.5, 0.3, 0.2])
    written = policy.generate(["a"] * 3000, max_new_tokens=1, batch=3000)
    shares = torch.bincount(torch.tensor(written.experts), minlength=3) / 3000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), rtol=0, atol=0.03)
    assert policy.generate(PROMPTS, mode="argmax", max_new_tokens=1).experts == [0] * 5
    assert policy.generate(PROMPTS, mode="token", max_new_tokens=1).experts == [-1] * 5


def expected_tokens(
    policy: MixturePolicy, log_weights: torch.Tensor, temperature: float, top_p: float
) -> dict[tuple[str, bool], float]:
    """Probabilities of all texts of two letters after "ab" in mode `token`, from the experts' log-probs alone."""
    first, ends = ["", "a", "b", "c"], [True, False, False, False]

    def nucleus(log_probs: torch.Tensor) -> torch.Tensor:
        probs = torch.softmax(log_probs / temperature, dim=-1)
        before = torch.stack([probs[probs > each].sum() for each in probs])
        kept = torch.where(before < top_p, probs, 0.0)
        return kept / kept.sum()

    found: dict[tuple[str, bool], float] = {}
    one = policy.logps(["ab"] * 4, first, ends)  # (tokens, experts)
    for probability, text, end, logps in zip(
        nucleus(torch.logsumexp(log_weights + one, -1)), first, ends, one, strict=True
    ):
        if end:
            found[text, True] = probability.item()
            continue
        shares = torch.log_softmax(log_weights + logps, dim=-1)  # of the experts, untouched
        two = policy.logps(["ab" + text] * 4, first, ends)
        for second, letter, over in zip(nucleus(torch.logsumexp(shares + two, -1)), first, ends, strict=True):
            found[text + letter, over] = (probability * second).item()
    return found


def distance(found: Counter[tuple[str, bool]], expected: dict[tuple[str, bool], float]) -> float:
    """Pearson's statistic over texts expected often enough, divided by their number: 1 on average."""
    draws = found.total()
    assert not {key for key, count in found.items() if count and not expected.get(key)}
    often = {key: p * draws for key, p in expected.items() if p * draws > 5}
    return sum((found[key] - mean) ** 2 / mean for key, mean in often.items()) / len(often)


@pytest.mark.parametrize("kind", ["linear", "independent"])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.6, 1.0), (1.5, 0.7)])
def test_token_mode_changes_the_mixtures_own_distribution(
    temperature: float, top_p: float, kind: str, make_policy: MakePolicy, letters: PreTrainedTokenizerBase
) -> None:
    policy = make_policy(kind, tokenizer=letters, weights=[0.5, 0.3, 0.2])
    written = policy.generate(
        ["ab"] * 10000, mode="token", max_new_tokens=2, temperature=temperature, top_p=top_p, seed=1, batch=10000
    )
    counts = Counter(zip(written.texts, written.finished, strict=True))
    expected = expected_tokens(policy, policy.log_weights(["ab"])[0], temperature, top_p)
    assert sum(expected.values()) == pytest.approx(1)
    assert distance(counts, expected) < 2


@pytest.mark.parametrize("kind", ["linear", "independent"])
@pytest.mark.parametrize("mode", ["sequence", "token"])
def test_the_strongest_experts_alone_are_the_mixture_of_them(
    mode: str, kind: str, make_policy: MakePolicy, letters: PreTrainedTokenizerBase
) -> None:
    policy = make_policy(kind, tokenizer=letters, weights=[0.3, 0.2, 0.5])
    texts, finished = completions(3)
    logps = policy.logps(["ab"] * len(texts), texts, finished)
    probs = (torch.tensor([3 / 8, 0, 5 / 8]) * logps.exp()).sum(dim=-1)
    torch.testing.assert_close(policy.mixture_logps(["ab"] * len(texts), texts, finished, top=2), probs.log())
    torch.testing.assert_close(probs.sum(), torch.tensor(1.0))
    written = policy.generate(["ab"] * 4000, mode=mode, top=2, max_new_tokens=3, batch=4000)
    expected = dict(zip(zip(texts, finished, strict=True), probs.tolist(), strict=True))
    assert distance(Counter(zip(written.texts, written.finished, strict=True)), expected) < 1.7
    assert written.dropped == pytest.approx([0.2] * 4000)
    assert set(written.experts) == ({-1} if mode == "token" else {0, 2})


def rows_of_weights() -> torch.Tensor:
    """(prompts, experts), as a gate would give them."""
    return torch.softmax(2 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["sequence", "token", "argmax"])
def test_the_strongest_differ_by_prompt(mode: str, kind: str, make_policy: MakePolicy) -> None:
    policy = make_policy(kind)
    weights = rows_of_weights()
    strongest = policy.generate(PROMPTS, mode=mode, weights=weights, top=2, max_new_tokens=8)
    assert len(set(weights.argmin(dim=-1).tolist())) > 1
    assert strongest.dropped == pytest.approx(weights.amin(dim=-1).tolist())
    # a row is written as if the strongest had been all there is, whichever others are in its batch
    renormalised = weights.masked_fill(weights == weights.amin(dim=-1, keepdim=True), 0.0)
    alone = policy.generate(PROMPTS, mode=mode, weights=renormalised, max_new_tokens=8)
    assert alone[:3] == strongest[:3]
    assert policy.generate(PROMPTS, mode=mode, weights=weights, top=2, max_new_tokens=8, batch=1) == strongest


@pytest.mark.parametrize("mode", ["sequence", "token", "argmax"])
def test_all_experts_are_no_restriction(mode: str, make_policy: MakePolicy) -> None:
    policy = make_policy("independent")
    dense = policy.generate(PROMPTS, mode=mode, weights=rows_of_weights(), max_new_tokens=8)
    assert policy.generate(PROMPTS, mode=mode, weights=rows_of_weights(), top=3, max_new_tokens=8) == dense
    assert dense.dropped == [0.0] * len(PROMPTS)
    texts, finished = dense.texts, dense.finished
    assert torch.equal(
        policy.mixture_logps(PROMPTS, texts, finished, top=3), policy.mixture_logps(PROMPTS, texts, finished)
    )


@pytest.mark.parametrize("mode", ["sequence", "token"])
def test_an_expert_that_no_prompt_wants_never_runs(mode: str, make_policy: MakePolicy) -> None:
    policy = make_policy("independent", weights=[0.6, 0.1, 0.3])
    ran = []
    for expert, (model, _) in enumerate(policy.expert_models.models()):
        model.trunk.register_forward_hook(lambda *_, expert=expert: ran.append(expert))
    policy.generate(PROMPTS * 4, mode=mode, top=2, max_new_tokens=4)
    assert set(ran) == {0, 2}


def test_given_weights_stand_in_for_the_policys_own(make_policy: MakePolicy) -> None:
    policy = make_policy()
    only = policy.generate(PROMPTS, expert=2, max_new_tokens=5)
    assert policy.generate(PROMPTS, weights=torch.tensor([0.0, 0.0, 1.0]), max_new_tokens=5) == only
    assert policy.generate(PROMPTS, weights=torch.tensor([0.0, 0.0, 7.0]), max_new_tokens=5) == only
    each = torch.eye(3)[[0, 1, 2, 1, 0]]
    assert policy.generate(PROMPTS, weights=each, max_new_tokens=5).experts == [0, 1, 2, 1, 0]
    token = policy.generate(PROMPTS, mode="token", weights=torch.tensor([0.0, 0.0, 1.0]), max_new_tokens=5)
    assert token.texts == only.texts


def test_a_finished_text_ends_where_the_model_ended_it(
    make_policy: MakePolicy, letters: PreTrainedTokenizerBase
) -> None:
    policy = make_policy(tokenizer=letters)
    written = policy.generate(["ab"] * 300, max_new_tokens=6)
    assert {True, False} == set(written.finished)
    for text, finished in zip(written.texts, written.finished, strict=True):
        assert "<" not in text
        assert len(text) < 6 if finished else len(text) == 6


def test_rows_that_end_early_do_not_disturb_the_others(
    make_policy: MakePolicy, letters: PreTrainedTokenizerBase
) -> None:
    policy = make_policy("independent", tokenizer=letters)
    prompts = ["a" * (n % 5) for n in range(40)]
    for mode in ("sequence", "token"):
        together = policy.generate(prompts, mode=mode, max_new_tokens=12)
        assert len({len(text) for text in together.texts}) > 4
        assert policy.generate(prompts, mode=mode, max_new_tokens=12, batch=1) == together


def test_a_lower_temperature_writes_likelier_texts(make_policy: MakePolicy) -> None:
    policy = make_policy()
    means = []
    for temperature in (0.3, 1.0, 3.0):
        written = policy.generate(["the cat"] * 200, expert=0, temperature=temperature, max_new_tokens=1, batch=200)
        texts = [(text, end) for text, end in zip(written.texts, written.finished, strict=True) if "\ufffd" not in text]
        prompts, completed, ended = ["the cat"] * len(texts), [text for text, _ in texts], [end for _, end in texts]
        means.append(policy.logps(prompts, completed, ended)[:, 0].mean().item())
    assert means[0] > means[1] > means[2]


@pytest.mark.parametrize("mode", ["sequence", "token"])
def test_rows_of_a_longer_list_are_written_as_they_are_there(mode: str, make_policy: MakePolicy) -> None:
    policy = make_policy()
    whole = policy.generate(PROMPTS, mode=mode, max_new_tokens=8, seed=5)
    for start, end in ((0, 2), (2, 3), (3, 5)):
        part = policy.generate(PROMPTS[start:end], mode=mode, max_new_tokens=8, seed=5, first=start)
        assert part == tuple(column[start:end] for column in whole)
    with pytest.raises(ConfigError, match="first is -1; expected 0 or more"):
        policy.generate(PROMPTS, first=-1)


@pytest.mark.parametrize("mode", ["sequence", "token", "argmax"])
def test_no_new_tokens_give_empty_texts_that_did_not_end(mode: str, make_policy: MakePolicy) -> None:
    written = make_policy().generate(PROMPTS, mode=mode, max_new_tokens=0)
    assert (written.texts, written.finished) == ([""] * 5, [False] * 5)


@pytest.mark.parametrize("kind", ["linear", "lowrank", "independent-lora"])
def test_half_precision_writes_the_same_whenever_it_is_asked(kind: str, make_policy: MakePolicy) -> None:
    policy = make_policy(kind)
    policy.precision = torch.bfloat16
    for mode in ("sequence", "token"):
        written = policy.generate(PROMPTS, mode=mode, max_new_tokens=8)
        assert policy.generate(PROMPTS, mode=mode, max_new_tokens=8) == written
        assert len(set(written.texts)) == 5


def test_an_empty_prompt_is_written_from_the_start_token_where_there_is_one(
    make_policy: MakePolicy, letters: PreTrainedTokenizerBase
) -> None:
    policy = make_policy(tokenizer=letters)
    assert len(set(policy.generate([""] * 20, max_new_tokens=4).texts)) > 5
    policy.tokenizer = copy.deepcopy(letters)
    policy.tokenizer.bos_token = None
    with pytest.raises(DataError, match="prompt 1 is empty and the tokenizer has no BOS token"):
        policy.generate(["ab", ""], max_new_tokens=4)


def test_no_prompts_give_no_texts(make_policy: MakePolicy) -> None:
    assert make_policy().generate([]) == ([], [], [], [])


def test_what_cannot_be_generated_is_refused(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with pytest.raises(ConfigError, match="mode 'both' is not one of sequence, token, argmax; choose one of them"):
        policy.generate(PROMPTS, mode="both")
    with pytest.raises(ConfigError, match="expert 3 does not exist: this mixture has experts 0 to 2"):
        policy.generate(PROMPTS, expert=3)
    with pytest.raises(ConfigError, match="weights are for 2 experts but this mixture has 3"):
        policy.generate(PROMPTS, weights=torch.ones(2))
    with pytest.raises(ConfigError, match="2 rows of weights for 5 prompts; give one row a prompt, or one for all"):
        policy.generate(PROMPTS, weights=torch.ones(2, 3))
    with pytest.raises(ConfigError, match="top is 4, but there are 3 experts; give 1 to 3"):
        policy.generate(PROMPTS, top=4)
    for bad in ([-1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [float("nan"), 1.0, 1.0]):
        with pytest.raises(ConfigError, match="weights must be at least 0 and sum to more than 0; give shares"):
            policy.generate(PROMPTS, weights=torch.tensor(bad))
    for bad in ({"batch": 0}, {"max_new_tokens": -1}):
        with pytest.raises(ConfigError, match="expected at least 1 row at once and 0 new tokens"):
            policy.generate(PROMPTS, **bad)
    with pytest.raises(ConfigError, match="max_new_tokens 64 do not fit the 64 positions that the model reads; lower"):
        policy.generate(PROMPTS, max_new_tokens=64)
