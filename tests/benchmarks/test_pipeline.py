from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "pipeline", raising=False)
    import pipeline

    return pipeline


def test_nothing_is_stale_in_the_finished_project(pipeline, tmp_path: Path) -> None:
    ((name, cost),) = pipeline.nothing_to_do(tmp_path, 1)
    assert name == "dvc repro, nothing to do"
    assert cost.cpu > 0
    assert cost.wall > 0


def test_each_case_is_a_line_with_both_times(pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "VERBS", (("--help",),))
    for rest in ("nothing_to_do", "prefect_over_dvc"):
        monkeypatch.setattr(pipeline, rest, lambda *_: iter([]))
    result = CliRunner().invoke(pipeline.main, ["--repeats", "1", "--json"], catch_exceptions=False)
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["case"] for row in rows] == ["python", "mixdpo --help"]
    for row in rows:
        assert row.keys() == {"benchmark", "case", "seconds", "cpu_seconds"}
        assert row["seconds"] > 0


def test_a_difference_of_costs_over_stages_is_a_price_a_stage(pipeline) -> None:
    assert (pipeline.Cost(8.0, 4.0) - pipeline.Cost(2.0, 1.0)).over(6) == (1.0, 0.5)
