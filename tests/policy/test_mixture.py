from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import ConfigError, DataError, ModelError
from mixdpo.policy import MixturePolicy
from mixdpo.policy.gate_inputs import Categories, GateInputs
from mixdpo.policy.weighting import Gate

MakePolicy = Callable[..., MixturePolicy]
PROMPTS = ["the cat", "a mat", "the cat"]
CHOSEN, REJECTED = [" sat on the mat", " is a mat", " liked it"], [" did not", "", " at all the dog"]
close = torch.testing.assert_close


@pytest.mark.parametrize("kind", ["linear", "lowrank", "independent"])
def test_before_the_first_step_margins_are_0_and_the_loss_is_ln_2(kind: str, make_policy: MakePolicy) -> None:
    margins = make_policy(kind, apart=False).margins(PROMPTS, CHOSEN, REJECTED)
    close(margins, torch.zeros(3, 3), rtol=0, atol=1e-5)
    close(-F.logsigmoid(margins).mean(), torch.tensor(math.log(2)), rtol=0, atol=1e-6)


def test_margins_are_what_their_parts_say(make_policy: MakePolicy) -> None:
    policy = make_policy()
    ended = [True, False, False]
    wanted = 0.5 * (
        (policy.logps(PROMPTS, CHOSEN, ended) - policy.reference_logps(PROMPTS, CHOSEN, ended)[:, None])
        - (policy.logps(PROMPTS, REJECTED) - policy.reference_logps(PROMPTS, REJECTED)[:, None])
    )
    close(policy.margins(PROMPTS, CHOSEN, REJECTED, ended), wanted)
    close(policy.margins(PROMPTS, REJECTED, CHOSEN, rejected_finished=ended), -wanted)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("kind", ["linear", "independent"])
def test_the_mixture_sums_to_one_over_all_completions(
    kind: str, gated: bool, make_policy: MakePolicy, letters: PreTrainedTokenizerBase
) -> None:
    policy = make_policy(kind, gated=gated, tokenizer=letters)
    for length in (1, 2, 3):
        ended = ["".join(word) for n in range(length) for word in itertools.product("abc", repeat=n)]
        cut = ["".join(word) for word in itertools.product("abc", repeat=length)]
        finished = [True] * len(ended) + [False] * len(cut)
        logps = policy.mixture_logps(["ab"] * len(finished), ended + cut, finished)
        close(logps.exp().sum(), torch.tensor(1.0))


def test_the_mixture_is_the_weighted_mean_of_its_experts(make_policy: MakePolicy) -> None:
    policy = make_policy(gated=True)
    wanted = (policy.weights(PROMPTS) * policy.logps(PROMPTS, CHOSEN).exp()).sum(dim=-1).log()
    close(policy.mixture_logps(PROMPTS, CHOSEN), wanted, rtol=1e-4, atol=1e-4)


def test_rows_are_scored_in_the_order_they_came(make_policy: MakePolicy) -> None:
    policy = make_policy()
    together = policy.logps(PROMPTS, CHOSEN)
    for place, alone in enumerate(together):
        close(policy.logps(PROMPTS[place : place + 1], CHOSEN[place : place + 1])[0], alone)


@pytest.mark.parametrize("gated", [False, True])
def test_personalise_is_the_posterior_of_one_user(gated: bool, make_policy: MakePolicy) -> None:
    policy = make_policy(gated=gated)
    comparisons = list(zip(PROMPTS, CHOSEN, REJECTED, strict=True))
    prior = policy.log_weights(PROMPTS).mean(dim=0).log_softmax(dim=-1)
    wanted = (prior + F.logsigmoid(policy.margins(PROMPTS, CHOSEN, REJECTED)).sum(dim=0)).softmax(dim=-1)
    found = policy.personalise(comparisons)
    close(found, wanted)
    assert (found - prior.exp()).abs().max() > 0.01
    keys = ("prompt", "chosen", "rejected")
    close(policy.personalise([dict(zip(keys, triple, strict=True)) for triple in reversed(comparisons)]), wanted)


def test_without_comparisons_a_user_is_left_with_the_prior(make_policy: MakePolicy) -> None:
    close(make_policy(weights=[0.2, 0.2, 0.6]).personalise([]), torch.tensor([0.2, 0.2, 0.6]))
    with pytest.raises(DataError) as error:
        make_policy(gated=True).personalise([])
    assert "no comparisons, and this gate's prior depends on the prompt; use weights(prompts)" in str(error.value)


def knowing(policy: MixturePolicy, columns: tuple[Any, ...] = (), prompt: int = 32) -> MixturePolicy:
    """The same policy with a gate that knows ann and bob, moved away from uniform."""
    inputs = GateInputs(prompt, columns, ("ann", "bob"))
    policy.weighting = Gate(inputs, 3, 0, torch.Generator().manual_seed(0), embedding=4)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for part in policy.weighting.parameters():
            part.add_(torch.randn(part.shape, generator=generator), alpha=0.3 if prompt else 1.0)
    return policy


def test_weights_are_those_of_the_annotator_who_asks(make_policy: MakePolicy) -> None:
    policy = knowing(make_policy())
    together = policy.weights(PROMPTS, ["ann", "bob", None])
    for place, name in enumerate(["ann", "bob", "zoe"]):
        close(together[place : place + 1], policy.weights(PROMPTS[place : place + 1], [name]))
    close(policy.weights(PROMPTS), policy.weights(PROMPTS, ["zoe", "yan", "xia"]))
    assert (together[0] - policy.weights(PROMPTS)[0]).abs().max() > 0.01


def test_weights_are_those_of_the_metadata(make_policy: MakePolicy) -> None:
    policy = knowing(make_policy(), (Categories("domain", ("book", "film")),), prompt=0)
    found = policy.weights(["a mat"] * 3, metadata={"domain": ["film", "book", "opera"]})
    close(found[2], policy.weights(["a mat"])[0])
    assert (found[0] - found[1]).abs().max() > 0.01
    with pytest.raises(DataError, match="metadata column domain: 1 values for 3 prompts; give one a prompt"):
        policy.weights(PROMPTS, metadata={"domain": ["film"]})
    with pytest.raises(DataError, match="annotators: 2 values for 3 prompts; give one a prompt"):
        policy.weights(PROMPTS, ["ann", "bob"])
    with pytest.raises(ConfigError, match="weights depend only on domain, not on age"):
        policy.weights(PROMPTS, metadata={"age": [1, 2, 3]})


def test_comparisons_add_to_what_is_known_of_an_annotator(make_policy: MakePolicy) -> None:
    policy = knowing(make_policy())
    comparisons = list(zip(PROMPTS, CHOSEN, REJECTED, strict=True))
    evidence = F.logsigmoid(policy.margins(PROMPTS, CHOSEN, REJECTED)).sum(dim=0)
    for who in ("ann", "zoe", None):
        prior = policy.log_weights(PROMPTS, [who] * 3).mean(dim=0)
        close(policy.personalise(comparisons, who), (prior + evidence).softmax(dim=-1))
    with pytest.raises(ConfigError, match="weights do not depend on the annotator"):
        make_policy().personalise(comparisons, "ann")


def test_a_gate_on_annotators_alone_has_a_prior_for_each(make_policy: MakePolicy) -> None:
    policy = knowing(make_policy(), prompt=0)
    close(policy.personalise([], "ann"), policy.weights(["whatever"], ["ann"])[0])
    close(policy.personalise([]), policy.weights(["whatever"])[0])


def test_texts_are_written_by_the_expert_of_the_annotator_who_asks(make_policy: MakePolicy) -> None:
    policy = knowing(make_policy(), (Categories("domain", ("book", "film")),), prompt=0)
    people, domains = ["ann", "bob", "ann", None] * 2, ["film"] * 4 + ["book"] * 4
    wanted = policy.weights(["a mat"] * 8, people, {"domain": domains}).argmax(dim=-1).tolist()
    assert len(set(wanted)) > 1
    found = policy.generate(["a mat"] * 8, None, people, "argmax", metadata={"domain": domains}, max_new_tokens=2)
    assert found.experts == wanted


def test_a_gate_on_the_features_of_another_base_is_refused(make_policy: MakePolicy) -> None:
    with pytest.raises(ModelError, match="learned on prompt features of width 24 but those of this reference have 32"):
        knowing(make_policy(), prompt=24).weights(PROMPTS)


def test_a_comparison_that_lacks_a_part_is_refused(make_policy: MakePolicy) -> None:
    with pytest.raises(DataError, match="a comparison lacks chosen, rejected; give prompt, chosen and rejected"):
        make_policy().personalise([{"prompt": "the cat"}])


def test_prompt_features_do_not_see_the_other_prompts(make_policy: MakePolicy) -> None:
    policy = make_policy()
    prompts = ["the cat sat on", "a", "the dog did"]
    together = policy.prompt_features(prompts)
    close(torch.cat([policy.prompt_features([prompt]) for prompt in prompts]), together)


def test_a_causal_lm_is_its_own_reference(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    make_model().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = MixturePolicy.from_causal_lm(tmp_path)
    assert policy.experts == 1
    assert policy.margins(PROMPTS, CHOSEN, REJECTED).abs().max() == 0
    close(policy.mixture_logps(PROMPTS, CHOSEN), policy.reference_logps(PROMPTS, CHOSEN))


def test_bfloat16_products_stay_close_and_give_float32(make_policy: MakePolicy) -> None:
    policy = make_policy()
    wanted = policy.logps(PROMPTS, CHOSEN)
    policy.precision = torch.bfloat16
    found = policy.logps(PROMPTS, CHOSEN)
    assert found.dtype == torch.float32
    assert not torch.equal(found, wanted)
    close(found, wanted, rtol=0.05, atol=0.5)


def test_what_cannot_be_scored_is_refused(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with pytest.raises(ConfigError, match="weights do not depend on the annotator; leave `annotators` out, or use"):
        policy.weights(PROMPTS, annotators=["u1", "u2", "u1"])
    with pytest.raises(DataError, match="there are no rows to score; give at least one prompt"):
        policy.logps([], [])
    with pytest.raises(DataError, match=r"row 1 has \d+ tokens but the model reads at most 64; shorten the text"):
        policy.logps(["a", "a"], ["b", " cat dog" * 60])
    with pytest.raises(DataError, match=r"row 0 has \d+ tokens but the model reads at most 64; shorten the text"):
        policy.prompt_features([" cat dog" * 60])
