from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_case_scores_all_rows_and_says_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("annotate_rows", "memory"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import annotate_rows

    monkeypatch.setattr(annotate_rows, "SHARD", 40)
    texts = [row["prompt"] + row["completion"] for table in annotate_rows.candidates(100) for row in table.to_pylist()]
    assert len(set(texts)) == 100
    found = annotate_rows.measure(100)
    assert (found["benchmark"], found["rows"], found["shards"]) == ("annotate_rows", 100, 3)
    assert found["cpu_s"] > 0
    assert found["file_mb"] > 0
