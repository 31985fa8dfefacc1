from __future__ import annotations

import pytest
import torch

from mixdpo.errors import ConfigError
from mixdpo.objective.sparsity import top_experts


@pytest.mark.parametrize("top", [1, 2, 3, 4, 5])
def test_exactly_the_strongest_are_kept_and_share_the_mass(top: int) -> None:
    log_weights = torch.log_softmax(torch.randn(200, 5, generator=torch.Generator().manual_seed(0)).double(), dim=-1)
    kept, dropped = top_experts(log_weights, top)
    alive = torch.isfinite(kept)
    assert (alive.sum(dim=-1) == top).all()
    torch.testing.assert_close(kept.exp().sum(dim=-1), torch.ones(200).double())
    # each that is kept is at least as likely as each that is dropped, and keeps its odds against the others kept
    least = torch.where(alive, log_weights, torch.inf).amin(dim=-1)
    assert (torch.where(alive, -torch.inf, log_weights).amax(dim=-1) <= least).all()
    torch.testing.assert_close(dropped, torch.where(alive, 0.0, log_weights.exp()).sum(dim=-1))
    scale = torch.where(alive, (kept - log_weights).exp(), (1 / (1 - dropped))[:, None])
    torch.testing.assert_close(scale, (1 / (1 - dropped))[:, None].expand_as(scale))


def test_all_experts_are_the_dense_computation_to_the_last_bit() -> None:
    log_weights = torch.log_softmax(torch.randn(50, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    kept, dropped = top_experts(log_weights, 4)
    assert torch.equal(kept, log_weights)
    assert torch.equal(dropped, torch.zeros(50))


def test_ties_go_to_the_first_experts() -> None:
    kept, dropped = top_experts(torch.full((7,), 1 / 7).log(), 3)
    assert torch.isfinite(kept).tolist() == [True] * 3 + [False] * 4
    torch.testing.assert_close(dropped, torch.tensor(4 / 7))


def test_experts_without_weight_do_no_harm() -> None:
    kept, dropped = top_experts(torch.tensor([[0.0, 1.0, 0.0]]).log(), 2)
    assert kept.exp().tolist() == [[0.0, 1.0, 0.0]]
    assert dropped.tolist() == [0.0]


def test_no_gradient_reaches_what_was_dropped() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    kept, _ = top_experts(torch.log_softmax(logits, dim=-1), 2)
    kept[0].backward()
    two = torch.softmax(torch.tensor([2.0, 1.0], dtype=torch.float64), dim=-1)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.stack([1 - two[0], -two[1], torch.tensor(0.0).double()]))


@pytest.mark.parametrize("top", [0, 4, -1])
def test_more_than_there_are_or_none_is_refused(top: int) -> None:
    with pytest.raises(ConfigError, match=f"top is {top}, but there are 3 experts; give 1 to 3"):
        top_experts(torch.zeros(3), top)
