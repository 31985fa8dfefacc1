from __future__ import annotations

import itertools

import pytest
import torch

from mixdpo.training.schedule import adamw, anneal, set_learning_rate


def rates(steps: int, warmup: float) -> list[list[float]]:
    parts = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = adamw([{"params": parts[:1], "lr": 1.0}, {"params": parts[1:], "lr": 0.1}], weight_decay=0.0)
    found = []
    for step in range(steps):
        set_learning_rate(optimizer, step, steps, warmup)
        found.append([group["lr"] for group in optimizer.param_groups])
    return found


def test_it_rises_to_the_peak_and_falls_to_a_tenth() -> None:
    first = [row[0] for row in rates(100, 0.1)]
    assert first[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert max(first) == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(first[10:]))
    assert first[-1] == pytest.approx(0.11)


def test_each_group_keeps_its_own_peak() -> None:
    for one, other in rates(20, 0.2):
        assert other == pytest.approx(0.1 * one)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_of_a_step_or_two_still_learns(steps: int) -> None:
    assert all(0 < rate <= 1 for row in rates(steps, 0.0) for rate in row)


def test_a_line_falls_to_its_end_and_stays() -> None:
    assert [anneal(step, 3.0, 1.0, 4, "linear") for step in range(6)] == [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]


def test_a_curve_falls_by_the_same_factor_at_each_step() -> None:
    found = [anneal(step, 8.0, 0.5, 4, "exponential") for step in range(6)]
    assert found == pytest.approx([8.0, 4.0, 2.0, 1.0, 0.5, 0.5])


@pytest.mark.parametrize("shape", ["linear", "exponential"])
def test_no_steps_is_the_end_at_once(shape: str) -> None:
    assert anneal(0, 4.0, 1.0, 0, shape) == 1.0
