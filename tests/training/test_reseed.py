"""A dead expert starts again on what is explained worst."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mixdpo.config.options import Reseed
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.heads import LinearHeads
from mixdpo.training.estep import Assigned
from mixdpo.training.reseed import Reseeder
from mixdpo.training.schedule import adamw

Make = Callable[..., Any]
SETTINGS = Reseed(usage=0.05, patience=3, steps=2)
# expert 2 has as good as no prior: it never gets anything to learn from
LOPSIDED = {"kind": "fixed", "values": [0.5, 0.5, 1e-9]}


def assigned_of(units: torch.Tensor, pairs_each: int = 2) -> Assigned:
    member = torch.arange(len(units)).repeat_interleave(pairs_each)
    return Assigned(units[member], units[member], units, member, 0.0)


class TestWatch:
    @pytest.fixture
    def experts(self, new_model: Make) -> SharedTrunk:
        weight = torch.randn(3, 300, 16, generator=torch.Generator().manual_seed(0))
        return SharedTrunk(new_model().base_model, LinearHeads(weight, None), trainable=False)

    def test_an_expert_is_dead_after_so_many_idle_steps_in_a_row(self, experts: SharedTrunk) -> None:
        optimizer = adamw([{"params": [experts.heads.weight], "lr": 0.1}], 0.0)
        reseeder = Reseeder(SETTINGS, 3)
        idle = assigned_of(torch.tensor([[0.3, 0.69, 0.01]] * 4))
        busy = assigned_of(torch.tensor([[0.3, 0.5, 0.2]] * 4))
        found = [reseeder.watch(each, experts, optimizer) for each in (idle, idle, busy, idle, idle, idle)]
        assert found == [[], [], [], [], [], [2]]
        assert torch.equal(experts.heads.weight[2], experts.heads.weight[1])  # the busiest
        assert reseeder.helped.tolist() == [0, 0, 2]
        assert reseeder.idle.tolist() == [0, 0, 0]

    def test_its_moments_are_forgotten_and_the_others_are_not(self, experts: SharedTrunk) -> None:
        optimizer = adamw([{"params": [experts.heads.weight], "lr": 0.1}], 0.0)
        experts.heads.weight.sum().backward()
        optimizer.step()
        reseeder = Reseeder(SETTINGS, 3)
        for _ in range(3):
            reseeder.watch(assigned_of(torch.tensor([[0.3, 0.69, 0.01]])), experts, optimizer)
        moments = optimizer.state[experts.heads.weight]
        for name in ("exp_avg", "exp_avg_sq"):
            assert (moments[name][2] == 0).all()
            assert (moments[name][:2] != 0).all()


def test_the_worst_explained_units_are_handed_over_for_so_many_steps() -> None:
    reseeder = Reseeder(SETTINGS, 3)
    reseeder.helped[2] = 2
    units = torch.tensor([[0.6, 0.39, 0.01]] * 6)
    # units 1 and 4 are explained by nobody
    logits = torch.full((12, 3), 2.0)
    logits[[2, 3, 8, 9]] = -1.0
    for _ in range(2):
        handed = reseeder.hand_over(assigned_of(units), logits)
        assert handed.units[[1, 4]].tolist() == [[0, 0, 1], [0, 0, 1]]
        assert torch.equal(handed.units[[0, 2, 3, 5]], units[:4])
        for part in (handed.pairs, handed.beliefs):
            assert torch.equal(part, handed.units[handed.member])
    assert torch.equal(reseeder.hand_over(assigned_of(units), logits).units, units)


def test_several_experts_share_the_worst_units_out() -> None:
    reseeder = Reseeder(SETTINGS, 3)
    reseeder.helped[1:] = 1
    units = torch.tensor([[1.0, 0.0, 0.0]] * 6)
    # the higher its place, the worse a unit is explained
    logits = -torch.arange(6.0)[:, None].repeat_interleave(2, dim=0).expand(-1, 3)
    handed = reseeder.hand_over(assigned_of(units), logits)
    assert handed.units.argmax(dim=1).tolist() == [0, 0, 2, 1, 2, 1]
    assert reseeder.helped.tolist() == [0, 0, 0]


def test_in_a_run_it_brings_a_dead_expert_back(make_task: Make, train: Make, caplog: pytest.LogCaptureFixture) -> None:
    task = make_task([12, 12, 12])
    options = {
        "weights": {"kind": "global", "alpha": 1.0, "smoothing": 0.5},
        "symmetry": {"kind": "anchors", "annotators": {f"annotator-{place}": place % 2 for place in range(36)}},
        "epochs": 6,
    }
    # anchors leave nobody to expert 2
    dead = train(task, task, 3, **options).result.history[-1]
    assert dead["usage_2"] < 0.02
    with caplog.at_level(logging.WARNING):
        rows = train(task, task, 3, reseed={"usage": 0.05, "patience": 4, "steps": 4}, **options).result.history
    assert sum(row["reseeded"] for row in rows) >= 1
    assert (
        "expert 2 explained less than 5.0% of the pairs for 4 steps: started again as a copy of expert" in caplog.text
    )
    assert max(row["usage_2"] for row in rows) > 0.2
