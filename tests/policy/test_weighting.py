from __future__ import annotations

import pytest
import torch

from mixdpo.policy.weighting import Gate, PriorWeights

features = torch.tensor([[100.0, -1.0, 0.0], [102.0, -3.0, 0.0], [101.0, 1.0, 0.0]])


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_gate_starts_uniform_and_stays_normalised(hidden: int) -> None:
    gate = Gate(3, 4, hidden, torch.Generator().manual_seed(0))
    gate.standardise(features)
    torch.testing.assert_close(gate(features, 3).exp(), torch.full((3, 4), 0.25))
    with torch.no_grad():
        gate.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(1))
    weights = gate(features, 3).exp()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3))
    assert (weights[0] - weights[1]).abs().max() > 0.01


def test_a_hidden_layer_comes_from_its_seed_alone() -> None:
    torch.manual_seed(5)
    first = Gate(3, 2, 5, torch.Generator().manual_seed(0))
    torch.manual_seed(6)
    second = Gate(3, 2, 5, torch.Generator().manual_seed(0))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_unit_of_the_features_does_not_matter() -> None:
    weights = []
    for scale in (1.0, 1000.0):
        gate = Gate(3, 2, 0)
        gate.standardise(scale * features)
        with torch.no_grad():
            gate.layers[-1].weight.copy_(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
        weights.append(gate(scale * features, 3))
    torch.testing.assert_close(*weights)
    assert torch.isfinite(weights[0]).all()  # though one feature never varies


def test_a_prior_is_normalised_and_the_same_for_all() -> None:
    prior = PriorWeights(torch.tensor([2.0, 6.0]).log())
    torch.testing.assert_close(prior(None, 3).exp(), torch.tensor([[0.25, 0.75]]).expand(3, -1))
    torch.testing.assert_close(PriorWeights.uniform(4)(None, 1).exp(), torch.full((1, 4), 0.25))
