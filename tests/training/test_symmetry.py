"""Experts that start equal stay equal for ever; the run says so, and what cures it does (method.md §5)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]
INDEPENDENT = {"kind": "independent"}
LINEAR = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}


@pytest.mark.parametrize("architecture", [LINEAR, INDEPENDENT], ids=["linear", "independent"])
@pytest.mark.parametrize("latent", ["pair", "annotator"])
def test_equal_experts_never_part_and_are_dpo_to_the_last_step(
    latent: str, architecture: dict[str, Any], make_task: Make, train: Make, caplog: pytest.LogCaptureFixture
) -> None:
    task, held_out = make_task([10, 2], seed=0), make_task([5, 1], seed=1)
    common = {"latent": latent, "architecture": architecture, "symmetry": {"kind": "none"}, "epochs": 5, "clip": 1e9}
    # one expert's gradient is 1/K of DPO's: Adam does not see the factor but through its epsilon
    with caplog.at_level(logging.WARNING):
        mixture = train(task, held_out, 3, **common)
    dpo = train(task, held_out, 1, **common)
    for row, plain in zip(mixture.result.history, dpo.result.history, strict=True):
        assert row["spread"] < 1e-5
        assert row["train_marginal"] == pytest.approx(plain["train_marginal"], abs=1e-3)
    assert mixture.result.history[-1]["train_marginal"] > mixture.result.history[0]["train_marginal"] + 0.01
    assert [finding.name for finding in mixture.result.findings] == ["identical-experts"]
    assert "identical-experts: the experts have not parted" in caplog.text
    assert "set symmetry to noise or partition in params.yaml" in caplog.text


@pytest.mark.parametrize("symmetry", [{"kind": "noise", "scale": 0.1}, {"kind": "partition", "steps": 3}])
@pytest.mark.parametrize("architecture", [LINEAR, INDEPENDENT], ids=["linear", "independent"])
def test_noise_and_partition_part_them(
    architecture: dict[str, Any], symmetry: dict[str, Any], make_task: Make, train: Make
) -> None:
    task, held_out = make_task([15, 15], seed=0), make_task([8, 8], seed=1)
    result = train(task, held_out, 2, epochs=4, architecture=architecture, symmetry=symmetry).result
    assert result.history[-1]["spread"] > 0.5
    assert result.findings == []


def test_low_rank_experts_part_by_themselves(make_task: Make, train: Make) -> None:
    task, held_out = make_task([15, 15], seed=0), make_task([8, 8], seed=1)
    lowrank = {"kind": "shared", "head": "lowrank", "rank": 4, "trunk": "frozen"}
    result = train(task, held_out, 2, epochs=6, architecture=lowrank, symmetry={"kind": "none"}).result
    assert result.history[0]["spread"] == pytest.approx(0, abs=1e-6)
    assert result.history[-1]["spread"] > 0.5
