"""A frozen trunk is run once a row; what trains from its states trains as if it ran at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mixdpo.policy.loading import new_experts
from mixdpo.policy.tokens import pad
from mixdpo.training.parallel import passes
from mixdpo.training.states import TrunkStates, frozen_states

CPU, FP32 = torch.device("cpu"), torch.float32
SHARED = {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "frozen"}
NOISE = {"kind": "noise", "scale": 0.1}


def test_states_are_the_trunks_in_any_order(make_task: Callable[..., Any], new_model: Callable[[], Any]) -> None:
    rows = make_task([6, 6]).pairs.rows(range(20))
    experts = new_experts(new_model(), 2, SHARED, torch.Generator())
    states = TrunkStates(experts, rows, CPU, FP32)
    some = [rows[place] for place in (7, 0, 30, 7)]
    torch.testing.assert_close(states(some), experts.completion_states(pad(some)), rtol=1e-4, atol=1e-5)
    assert not states(some).requires_grad


def test_a_trunk_that_learns_or_would_not_fit_is_run_at_every_step(
    make_task: Callable[..., Any], new_model: Callable[[], Any]
) -> None:
    rows = make_task([6, 6]).pairs.rows(range(20))

    def known(architecture: dict[str, Any], room: int = 1 << 20) -> TrunkStates | None:
        return frozen_states(new_experts(new_model(), 2, architecture, torch.Generator()), rows, CPU, FP32, room)

    assert known(SHARED) is not None
    assert known(SHARED, room=100) is None
    assert known(SHARED | {"trunk": "trainable"}) is None
    assert known({"kind": "independent"}) is None


def test_training_from_states_is_training(
    make_task: Callable[..., Any], train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task([6, 6])
    held = train(task, task, 2, architecture=SHARED, symmetry=NOISE, epochs=2).result.history
    monkeypatch.setattr(passes, "frozen_states", lambda *_: None)
    fresh = train(task, task, 2, architecture=SHARED, symmetry=NOISE, epochs=2).result.history
    for one, other in zip(held, fresh, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
