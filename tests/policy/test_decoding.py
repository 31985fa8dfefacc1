from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.policy import MixturePolicy
from mixdpo.policy.authors import NewRow, OwnExpert, TokenMixture
from mixdpo.policy.decoding import write
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference
from mixdpo.policy.products import ready
from mixdpo.policy.tokens import encode_prompts
from mixdpo.policy.weighting import PriorWeights

MakePolicy = Callable[..., MixturePolicy]
Authors = OwnExpert | TokenMixture
PROMPTS = ["the cat", "a", "the dog did not like", "the mat and the cat sat", "it", "on the mat", "a cat"]
EXPERTS = torch.tensor([2, 0, 1, 2, 0, 1, 0])
KINDS = ["linear", "lowrank", "independent"]
STEPS = 9


class Watched:
    """Authors whose every step is kept: which rows wrote, what they had written, and the scores they met."""

    def __init__(self, authors: Authors) -> None:
        self.authors = authors
        self.device = authors.device
        self.here: list[list[int]] = []
        self.steps: list[tuple[list[list[int]], torch.Tensor]] = []

    @property
    def room(self) -> int:
        return self.authors.room

    def step(self, tokens: torch.Tensor, new: Sequence[NewRow]) -> tuple[torch.Tensor, torch.Tensor]:
        self.here = [[*text, token] for text, token in zip(self.here, tokens.tolist(), strict=True)]
        self.here += [list(prompt) for _, prompt in new]
        places, logits = self.authors.step(tokens, new)
        self.steps.append(([self.here[place] for place in places.tolist()], logits.clone()))
        return places, logits

    def observe(self, tokens: torch.Tensor) -> None:
        self.authors.observe(tokens)

    def keep(self, order: Sequence[int]) -> None:
        self.authors.keep(order)
        self.here = [self.here[place] for place in order]


def numbers(rows: int = len(PROMPTS), steps: int = STEPS) -> torch.Tensor:
    return torch.rand(rows, steps, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@torch.inference_mode()
def run(
    policy: MixturePolicy,
    slots: int,
    together: bool = False,
    prompts: Sequence[str] = PROMPTS,
    experts: torch.Tensor = EXPERTS,
    uniforms: torch.Tensor | None = None,
    eos: int | None = 0,
) -> tuple[list[list[int]], Watched]:
    """What each row wrote: experts[row], or all with the weights 1, 2, 3."""
    ids = encode_prompts(policy.tokenizer, prompts)
    models = list(dict.fromkeys(model for model, _ in policy.expert_models.models()))
    with ready(models, passes=99, rows=slots) as heads:
        authors: Authors
        if together:
            weights = torch.tensor([1.0, 2.0, 3.0]).div(6).log().expand(len(ids), -1)
            authors = TokenMixture(policy, weights, heads, slots, 40)
        else:
            authors = OwnExpert(policy, experts, heads, slots, 40)
        watched = Watched(authors)
        draws = numbers() if uniforms is None else uniforms
        written = dict(write(watched, ids, draws, 1.0, 1.0, eos))  # type: ignore[arg-type]
    assert sorted(written) == list(range(len(ids)))
    return [written[row] for row in range(len(ids))], watched


def after(policy: MixturePolicy, text: list[int]) -> torch.Tensor:
    """log π_k of the token after `text`, by a plain forward pass: (experts, vocabulary)."""
    each = []
    for model, head in policy.expert_models.models():
        state = model.trunk(input_ids=torch.tensor([text])).last_hidden_state[0, -1:]
        each.append(model.heads.one(state, head)[0].log_softmax(-1))
    return torch.stack(each)


@pytest.mark.parametrize("kind", ["linear", "lowrank"])
def test_scores_are_those_of_a_plain_forward_pass_of_the_text_so_far(kind: str, make_policy: MakePolicy) -> None:
    policy = make_policy(kind)
    # no prompt is the beginning of another, so that a text tells its row
    prompts = ["cat", "dog", "mat", "it"]
    starts = encode_prompts(policy.tokenizer, prompts)
    _, watched = run(policy, 3, prompts=prompts, experts=torch.tensor([2, 0, 1, 2]), uniforms=numbers(4))
    assert len(watched.steps) > STEPS
    for texts, logits in watched.steps:
        for text, row in zip(texts, logits, strict=True):
            expert = [2, 0, 1, 2][next(n for n, start in enumerate(starts) if text[: len(start)] == start)]
            torch.testing.assert_close(row.log_softmax(-1), after(policy, text)[expert], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_together_the_scores_are_the_mixtures_given_the_text_so_far(kind: str, make_policy: MakePolicy) -> None:
    policy = make_policy(kind)
    prompts = encode_prompts(policy.tokenizer, ["the cat"] * 2 + ["a"] * 2)
    _, watched = run(policy, 3, True, ["the cat"] * 2 + ["a"] * 2, uniforms=numbers(4, 4))
    for texts, logits in watched.steps:
        for text, row in zip(texts, logits, strict=True):
            start = len(next(prompt for prompt in prompts if text[: len(prompt)] == prompt))
            shares = torch.tensor([1.0, 2.0, 3.0]).div(6).log()
            for end in range(start, len(text)):
                shares = shares + after(policy, text[:end])[:, text[end]]
            expected = torch.logsumexp(shares.log_softmax(-1)[:, None] + after(policy, text), dim=0)
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", ["linear", "lowrank"])
def test_texts_depend_on_neither_slots_nor_order(
    kind: str, together: bool, make_policy: MakePolicy, letters: PreTrainedTokenizerBase
) -> None:
    policy = make_policy(kind, tokenizer=letters)
    prompts = ["ab", "c", "abca", "bbb", "ca", "a", "cc"]
    texts, _ = run(policy, len(prompts), together, prompts)
    assert len({len(text) for text in texts}) > 2
    order = torch.tensor([5, 2, 6, 0, 4, 1, 3])
    mixed = [prompts[row] for row in order]
    for slots in (1, 2, 4):
        assert run(policy, slots, together, prompts)[0] == texts
        found, _ = run(policy, slots, together, mixed, EXPERTS[order], numbers()[order])
        assert found == [texts[row] for row in order]


@pytest.mark.parametrize("together", [False, True])
def test_samples_of_one_prompt_read_it_once_and_are_what_each_is_alone(together: bool, make_policy: MakePolicy) -> None:
    policy = make_policy()
    prompts = ["the cat sat", "a dog", "the cat sat", "the cat sat", "a dog", "the cat sat", "a dog"]
    longer, shorter = (len(row) for row in encode_prompts(policy.tokenizer, prompts[:2]))
    one_by_one, _ = run(policy, 1, together, prompts)
    assert len({tuple(text) for text in one_by_one}) > 4
    read: list[int] = []
    trunk = next(policy.expert_models.models())[0].trunk
    hook = trunk.register_forward_pre_hook(lambda *call: read.append(call[-1]["input_ids"].numel()), with_kwargs=True)
    assert run(policy, len(prompts), together, prompts)[0] == one_by_one
    assert read[0] == longer + shorter
    read.clear()
    # with fewer slots, those of the longer prompt start together
    assert run(policy, 4, together, prompts)[0] == one_by_one
    assert read[0] == longer
    hook.remove()


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_a_free_slot_is_taken_at_once(slots: int, make_policy: MakePolicy, letters: PreTrainedTokenizerBase) -> None:
    policy = make_policy(tokenizer=letters)
    prompts = ["a" * (1 + n % 4) for n in range(24)]
    experts = torch.arange(24) % 3
    texts, watched = run(policy, slots, False, prompts, experts, numbers(24, 12))
    waiting = sorted(range(24), key=lambda row: (-len(prompts[row]), row))
    left: list[int] = []
    expected = []
    while waiting or left:
        left += [len(texts[waiting.pop(0)]) for _ in range(min(slots - len(left), len(waiting)))]
        expected.append(len(left))
        left = [steps - 1 for steps in left if steps > 1]
    assert [len(rows) for rows, _ in watched.steps] == expected
    assert expected[0] == slots


def test_all_rows_end_at_once(make_policy: MakePolicy) -> None:
    policy = make_policy()
    texts, watched = run(policy, 3, uniforms=numbers(steps=1))
    assert [len(text) for text in texts] == [1] * len(PROMPTS)
    assert [len(rows) for rows, _ in watched.steps] == [3, 3, 1]
    assert len(watched.steps) == math.ceil(len(PROMPTS) / 3)


def test_without_an_end_token_rows_are_cut(make_policy: MakePolicy) -> None:
    texts, _ = run(make_policy(), 4, eos=None)
    assert [len(text) for text in texts] == [STEPS] * len(PROMPTS)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen", "neox"])
def test_greedy_texts_are_those_of_transformers_generate(
    architecture: str, make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerBase
) -> None:
    model = make_model(architecture)
    expert = frozen_reference(copy.deepcopy(model))
    assert isinstance(expert, SharedTrunk)
    policy = MixturePolicy(expert, PriorWeights.uniform(1), expert, tokenizer, Likelihood(0.1), "pair", {})
    eos = int(tokenizer.eos_token_id)
    greedy = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=eos, pad_token_id=eos)
    written = policy.generate(PROMPTS, temperature=0, max_new_tokens=12, batch=3)
    for ids, text in zip(encode_prompts(tokenizer, PROMPTS), written.texts, strict=True):
        prompt = torch.tensor([ids])
        theirs = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=greedy)[0, len(ids) :]
        assert text == tokenizer.decode([token for token in theirs.tolist() if token != eos])
