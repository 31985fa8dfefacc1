"""What a technique is replaced by computes the same: losses stay equal, whatever each side costs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from click.testing import CliRunner

ROOT = Path(__file__).parents[2]


def test_a_step_without_a_technique_is_the_step(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    ablation = importlib.import_module("dpo_ablation")
    without = [word for name in ("padded rows", "whole logits") for word in ("--without", name)]
    arguments = ["--size", "tiny", "--experts", "2", "--steps", "2", "--json", *without]
    result = CliRunner().invoke(ablation.main, arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["instead"] for row in rows] == ["all techniques", "padded rows", "whole logits"]
    assert all(row["loss_difference"] < 1e-5 for row in rows)
    assert rows[0]["ratio"] == 1
