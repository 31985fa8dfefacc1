from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mixdpo.engine import slices
from mixdpo.engine.local import InProcess

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_shards_costs_are_those_of_its_work_and_of_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "engines", raising=False)
    from engines import measure, project

    task, texts = project(tmp_path, 24)
    found = measure(InProcess(), "local", task, slices(texts, 10), tmp_path / "work")
    assert (found["shards"], found["rows"]) == (3, 24)
    assert found["scores"].column_names == ["sentiment", "grammar", "informativeness"]
    assert 0 < 3 * found["work_s_per_shard"] + found["load_s"] < 3 * found["wall_s"]
