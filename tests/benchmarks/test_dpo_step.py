"""Both trainers take the same steps on the tiny size: equal losses, and every key that the notes promise."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
KEYS = {
    *("benchmark", "size", "experts", "head", "dtype", "device", "ours_s_per_step", "trl_s_per_step"),
    *("floor_s_per_step", "ours_peak_mb", "trl_peak_mb", "ratio"),
}


@pytest.fixture
def dpo_step(monkeypatch):
    """A module of benchmarks/, which is no package."""
    pytest.importorskip("trl", reason="TRL comes with the dev extra")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("dpo_step")


def test_one_expert_takes_trls_steps(dpo_step) -> None:
    arguments = ["--size", "tiny", "--experts", "1", "--head", "linear", "--threads", "1", "--steps", "3", "--json"]
    result = CliRunner().invoke(dpo_step.main, arguments)
    assert result.exit_code == 0, result.output
    (row,) = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    assert row.keys() >= KEYS
    assert row["loss_difference"] < 1e-4
    assert 0 < row["floor_s_per_step"] < row["ours_s_per_step"]
