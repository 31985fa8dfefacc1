"""Experts that stay, while others and the gate train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mixdpo.policy.loading import new_experts
from mixdpo.training.freezing import perturb_others

Make = Callable[..., Any]
GATE = {"kind": "gate", "hidden": 0, "entropy": 0.0, "rest_steps": 0, "learning_rate": 0.03}
ARCHITECTURES = {
    "linear": {"kind": "shared", "head": "linear", "rank": None, "trunk": "frozen"},
    "lowrank": {"kind": "shared", "head": "lowrank", "rank": 4, "trunk": "frozen"},
    "independent": {"kind": "independent"},
    "adapters": {"kind": "independent", "lora": {"rank": 2, "alpha": 4.0}},
}
NOISE, NO_CURE = {"kind": "noise", "scale": 0.1}, {"kind": "none"}


def own(experts: Any, expert: int) -> list[torch.Tensor]:
    return [p.detach() if place is None else p.detach()[place] for p, place in experts.expert_parameters(expert)]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_frozen_experts_stay_bit_for_bit_and_the_others_move(kind: str, make_task: Make, train: Make) -> None:
    task = make_task([6, 6], each=4)
    options = {"architecture": ARCHITECTURES[kind], "symmetry": NOISE, "weight_decay": 0.1, "batch_pairs": 16}
    still = {"frozen": [0, 1, 2], "weights": {"kind": "global", "alpha": 1.0, "smoothing": 0.9}, "symmetry": NO_CURE}
    start = train(task, task, 3, **(options | still))
    trained = train(task, task, 3, frozen=[0, 2], **options).experts
    for expert in (0, 2):
        for before, after in zip(own(start.experts, expert), own(trained, expert), strict=True):
            assert torch.equal(before, after)
    assert any((one != other).any() for one, other in zip(own(start.experts, 1), own(trained, 1), strict=True))


@pytest.mark.parametrize("kind", ["lowrank", "independent"])
def test_a_gate_can_train_alone_over_frozen_experts(kind: str, make_task: Make, train: Make) -> None:
    task = make_task([8, 8], by_domain=True)
    anchors = {"kind": "anchors", "annotators": {f"annotator-{code}": code // 8 for code in range(16)}}
    options = {"architecture": ARCHITECTURES[kind], "weights": GATE, "epochs": 6, "batch_pairs": 16}
    still = train(task, task, 2, frozen=[0, 1], symmetry=NO_CURE, **options)
    trained = train(task, task, 2, frozen=[0, 1], symmetry=anchors, **options)
    for expert in range(2):
        for before, after in zip(own(still.experts, expert), own(trained.experts, expert), strict=True):
            assert torch.equal(before, after)
    # each domain has its own annotators: the gate learns whose expert a prompt wants
    weights = trained.weighting(trained.weighting.encode(task.context), len(task.pairs)).exp()
    right = weights[torch.arange(len(task.pairs)), task.styles]
    assert right.mean() > 0.6


def test_the_frozen_do_not_count_in_the_gradients_norm(make_task: Make, train: Make) -> None:
    task = make_task([6, 6], each=4)
    options = {"architecture": ARCHITECTURES["linear"], "symmetry": NO_CURE, "batch_pairs": 1000}
    everyone = train(task, task, 2, **options).result.history[0]["gradient_norm"]
    one = train(task, task, 2, frozen=[1], **options).result.history[0]["gradient_norm"]
    # equal experts have equal gradients: without one of the two the norm falls by sqrt 2
    assert one == pytest.approx(everyone / 2**0.5, rel=1e-5)


def test_noise_is_for_experts_that_begin_anew(new_model: Make) -> None:
    architecture = ARCHITECTURES["linear"]
    experts = new_experts(new_model(), 3, architecture, torch.Generator().manual_seed(0))
    before = [[part.clone() for part in own(experts, expert)] for expert in range(3)]
    perturb_others(experts, [0, 1], 0.1, torch.Generator().manual_seed(0))
    moved = [
        any((one != other).any() for one, other in zip(before[expert], own(experts, expert), strict=True))
        for expert in range(3)
    ]
    assert moved == [False, False, True]
