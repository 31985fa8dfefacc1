from __future__ import annotations

import pytest
import torch

from mixdpo.errors import ConfigError
from mixdpo.policy.context import Context
from mixdpo.policy.gate_inputs import GateInputs
from mixdpo.policy.weighting import DomainWeights, Gate, PriorWeights, RandomWeights, Weighting
from mixdpo.policy.weighting.select import select_weights

FEATURES = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def gate(hidden: int) -> Gate:
    made = Gate(GateInputs(6), 3, hidden, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for seed, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return made


@pytest.mark.parametrize(
    "weighting",
    [PriorWeights(torch.tensor([0.5, 0.2, 0.3]).log()), gate(0), gate(4)],
    ids=["prior", "linear", "hidden"],
)
def test_a_split_expert_shares_its_mass_and_a_dropped_one_leaves_it_to_the_rest(weighting: Weighting) -> None:
    with torch.no_grad():
        before = weighting(FEATURES, 5).exp()
        split = select_weights(weighting, [0, 1, 2, 1])(FEATURES, 5).exp()
        torch.testing.assert_close(split[:, [0, 2]], before[:, [0, 2]])
        torch.testing.assert_close(split[:, 1], before[:, 1] / 2)
        torch.testing.assert_close(split[:, 3], before[:, 1] / 2)
        fewer = select_weights(weighting, [2, 0])(FEATURES, 5).exp()
        torch.testing.assert_close(fewer, before[:, [2, 0]] / before[:, [2, 0]].sum(dim=-1, keepdim=True))
        torch.testing.assert_close(weighting(FEATURES, 5).exp(), before)


def test_a_new_gate_learns_by_itself_and_a_frozen_one_stays_frozen() -> None:
    old = gate(4)
    new = select_weights(old, [0, 1])
    assert not {id(parameter) for parameter in new.parameters()} & {id(parameter) for parameter in old.parameters()}
    assert all(parameter.requires_grad for parameter in new.parameters())
    frozen = select_weights(old.requires_grad_(False), [0, 1])
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_random_weights_lean_to_any_of_the_new_experts_and_a_table_of_domains_is_refused() -> None:
    more = select_weights(RandomWeights(1, 0.9), [0, 0, 0])
    context = Context([f"prompt {number}" for number in range(60)], lambda: FEATURES)
    assert more(more.encode(context), 60).argmax(dim=-1).unique().tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"weights of kind domain name each expert, .* use another kind"):
        select_weights(DomainWeights(2, 0.9, {"film": 1}), [0, 1, 1])
