"""Gumbel-Softmax draws of the expert (method.md §4)."""

from __future__ import annotations

import pytest
import torch

from mixdpo.objective import gumbel_softmax

Q = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)


def draws(temperature: float, straight_through: bool = False, rows: int = 20_000, seed: int = 0) -> torch.Tensor:
    return gumbel_softmax(Q.expand(rows, -1), temperature, straight_through, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_the_likeliest_expert_of_a_draw_is_a_draw_from_q(temperature: float) -> None:
    share = torch.bincount(draws(temperature).argmax(dim=-1), minlength=3) / 20_000
    torch.testing.assert_close(share.double(), Q, atol=0.012, rtol=0)


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 50.0])
def test_rows_are_distributions(temperature: float) -> None:
    q = draws(temperature, rows=50)
    assert (q >= 0).all()
    torch.testing.assert_close(q.sum(dim=-1), torch.ones(50, dtype=q.dtype))


def test_a_small_temperature_gives_a_one_hot_and_a_large_one_the_uniform() -> None:
    assert draws(1e-6, rows=200).max(dim=-1).values.min() > 1 - 1e-9
    torch.testing.assert_close(
        draws(1e6, rows=200), torch.full((200, 3), 1 / 3, dtype=torch.float64), atol=1e-4, rtol=0
    )


def test_straight_through_is_the_one_hot_of_the_same_draw() -> None:
    hard, soft = draws(1.0, straight_through=True, rows=300), draws(1.0, rows=300)
    assert ((hard == 0) | (hard == 1)).all()
    assert torch.equal(hard.argmax(dim=-1), soft.argmax(dim=-1))


def test_an_impossible_expert_is_never_drawn() -> None:
    q = gumbel_softmax(torch.tensor([[0.5, 0.0, 0.5]]).expand(500, -1), 1.0, False, torch.Generator().manual_seed(1))
    assert torch.equal(q[:, 1], torch.zeros(500))


def test_the_draw_is_the_seeds() -> None:
    assert torch.equal(draws(1.0, rows=20, seed=3), draws(1.0, rows=20, seed=3))
    assert not torch.equal(draws(1.0, rows=20, seed=3), draws(1.0, rows=20, seed=4))
