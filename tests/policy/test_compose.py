from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from mixdpo.errors import ConfigError, ModelError
from mixdpo.policy import MixturePolicy
from mixdpo.policy.compose import compose
from mixdpo.policy.likelihood import Likelihood

MakePolicy = Callable[..., MixturePolicy]
PROMPTS = ["the cat", "a mat", "the dog did not"]
COMPLETIONS = [" sat on the mat", " is a mat", " like it at all"]


def elsewhere(policy: MixturePolicy, seed: int = 7) -> MixturePolicy:
    """The same base after another training."""
    policy.expert_models.perturb(0.5, torch.Generator().manual_seed(seed))
    return policy


@pytest.mark.parametrize("kind", ["lowrank", "independent"])
def test_every_expert_gives_exactly_what_it_gave(kind: str, make_policy: MakePolicy, tmp_path: Path) -> None:
    one, other = make_policy(kind), elsewhere(make_policy(kind, experts=2))
    wanted = torch.stack(
        [one.logps(PROMPTS, COMPLETIONS)[:, 2], *other.logps(PROMPTS, COMPLETIONS).unbind(-1)[::-1]], dim=-1
    )
    assert len({round(column.sum().item(), 4) for column in wanted.unbind(-1)}) == 3
    made = compose([(one, 2), (other, 1), (other, 0)])
    assert torch.equal(made.logps(PROMPTS, COMPLETIONS), wanted)
    assert torch.equal(made.reference_logps(PROMPTS, COMPLETIONS), one.reference_logps(PROMPTS, COMPLETIONS))
    torch.testing.assert_close(made.weights(PROMPTS), torch.full((3, 3), 1 / 3))
    # it is a mixture like any other: saved, read back, composed again
    again = MixturePolicy.from_pretrained(made.save_pretrained(tmp_path / "made"))
    assert torch.equal(again.logps(PROMPTS, COMPLETIONS), wanted)
    assert torch.equal(compose([(again, 1)]).logps(PROMPTS, COMPLETIONS), wanted[:, 1:2])


@pytest.mark.parametrize("kind", ["linear", "lowrank-trainable"])
def test_experts_over_one_trained_trunk_are_reordered_freely(kind: str, make_policy: MakePolicy) -> None:
    policy = make_policy(kind)
    wanted = policy.logps(PROMPTS, COMPLETIONS)[:, [2, 0]]
    assert torch.equal(compose([(policy, 2), (policy, 0)]).logps(PROMPTS, COMPLETIONS), wanted)


@pytest.mark.parametrize("kind", ["lowrank", "independent"])
def test_the_parts_keep_their_experts(kind: str, make_policy: MakePolicy) -> None:
    one, other = make_policy(kind), elsewhere(make_policy(kind))
    before = [each.logps(PROMPTS, COMPLETIONS) for each in (one, other)]
    compose([(one, 1), (other, 0), (one, 0)])
    assert torch.equal(one.logps(PROMPTS, COMPLETIONS), before[0])
    assert torch.equal(other.logps(PROMPTS, COMPLETIONS), before[1])


def test_each_keeps_its_own_temperature(make_policy: MakePolicy) -> None:
    one, other = make_policy("lowrank", experts=2), make_policy("lowrank", experts=2)
    one.likelihood, other.likelihood = Likelihood(0.5), Likelihood([0.1, 0.2], epsilon=0.04)
    sides = (PROMPTS, COMPLETIONS, COMPLETIONS[::-1])
    made = compose([(one, 1), (other, 1)])
    wanted = torch.stack([one.margins(*sides)[:, 1], other.margins(*sides)[:, 1]], dim=-1)
    torch.testing.assert_close(made.margins(*sides), wanted)
    assert made.likelihood.epsilon.item() == pytest.approx(0.02)


def test_another_base_is_refused_with_what_differs(make_policy: MakePolicy, letters: PreTrainedTokenizerBase) -> None:
    one = make_policy("lowrank")
    names = ["reviews@v1/expert-0", "books@v2/expert-1"]

    def refused(other: MixturePolicy, told: str) -> None:
        with pytest.raises(ModelError, match=rf"books@v2/expert-1 does not fit reviews@v1/expert-0: .*{told}"):
            compose([(one, 0), (other, 1)], names)

    refused(make_policy("linear"), "head linear in its architecture, expected lowrank; compose experts of mixtures")
    refused(make_policy("independent"), "kind independent in its architecture, expected shared")
    refused(make_policy("lowrank", tokenizer=letters), "another vocabulary: 4 tokens, not 280")
    refused(make_policy("lowrank", architecture="llama"), "another reference: only one of the two has")
    moved = make_policy("lowrank")
    with torch.no_grad():
        next(moved.reference.heads.parameters()).add_(1e-3)
    refused(moved, "another reference: heads.weight has other values; .* one SFT model")
    other_heads = make_policy("lowrank")
    other_heads.reference.trunk.config.n_head = 4
    refused(other_heads, "another reference: n_head 4 in its configuration, expected 2")
    per_token = make_policy("lowrank")
    per_token.likelihood = Likelihood(0.5, per_token=True)
    refused(per_token, "it was trained with margins: token, expected sum")


def test_trunks_that_were_trained_apart_are_refused(make_policy: MakePolicy) -> None:
    one, other = make_policy("linear"), make_policy("linear")
    with torch.no_grad():
        next(other.expert_models.trunk.parameters()).add_(0.1)
    with pytest.raises(
        ModelError, match=r"part 1 does not fit part 0: their trunks were trained apart .*trunk: frozen"
    ):
        compose([(one, 0), (other, 0)])


def test_what_is_not_there_is_refused(make_policy: MakePolicy) -> None:
    with pytest.raises(ConfigError, match="no experts to compose; give at least one"):
        compose([])
    with pytest.raises(ConfigError, match="part 0: expert 3 does not exist, its mixture has 0 to 2"):
        compose([(make_policy(), 3)])
