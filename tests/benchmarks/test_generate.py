from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_all_sides_write_and_the_table_has_their_throughputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("generate", "generate_sides", "dpo_sides"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from generate import Case, compare

    row = compare(Case("tiny", 2, "lowrank", 3, 0, 8, "fp32", "cpu", 1), rounds=2, clock="cpu")
    assert (row["benchmark"], row["experts"]) == ("generate", 2)
    for side in ("ours", "one_after_another", "hf"):
        assert row[f"{side}_tokens_per_s"] > 0
