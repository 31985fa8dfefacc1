"""Both trainers take the same steps on the tiny size: equal losses, and every key that the notes promise."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
KEYS = {
    *("benchmark", "size", "experts", "head", "dtype", "device", "ours_s_per_step", "trl_s_per_step"),
    *("floor_s_per_step", "ours_peak_mb", "trl_peak_mb", "ratio"),
}


@pytest.fixture
def benchmark(monkeypatch):
    """A module of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def dpo_step(benchmark):
    pytest.importorskip("trl", reason="TRL comes with the dev extra")
    return benchmark("dpo_step")


def test_one_expert_takes_trls_steps(dpo_step) -> None:
    arguments = ["--size", "tiny", "--experts", "1", "--head", "linear", "--threads", "1", "--steps", "3", "--json"]
    result = CliRunner().invoke(dpo_step.main, arguments)
    assert result.exit_code == 0, result.output
    (row,) = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    assert row.keys() >= KEYS
    assert row["loss_difference"] < 1e-4
    assert 0 < row["floor_s_per_step"] < row["ours_s_per_step"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peaks from /proc")
def test_memory_is_what_was_expected_before_the_first_step(benchmark) -> None:
    sides = benchmark("dpo_sides")
    case = sides.Case("small", 1, "linear", "trainable", 8, False, "bf16", "cpu", 1, 3)
    ours = benchmark("apart").Apart(sides.serve, ("ours",), case)
    for step in range(case.steps):
        ours.ask("ours", step)
    measured, expected = ours.end()["ours"]
    assert 0.7 < measured / expected < 1.2
