from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("samples", "lengths"), [(1, "mixed"), (2, "equal")])
def test_all_sides_write_and_the_table_has_their_throughputs(
    samples: int, lengths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("generate", "generate_sides", "dpo_sides"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from generate import Case, compare
    from generate_sides import Sides

    case = Case("tiny", 2, "lowrank", 3, samples, 0, 16, 8, lengths, "fp32", "cpu", 1)
    row = compare(case, rounds=2, clock="cpu")
    assert (row["benchmark"], row["experts"]) == ("generate", 2)
    for side in ("ours", "one_after_another", "hf"):
        assert row[f"{side}_tokens_per_s"] > 0
    sides = Sides(case)
    written = [sides.in_one_batch(0), sides.one_after_another(0), sides.by_transformers(2)(0)]
    most = 2 * 3 * samples * 8
    assert all(tokens == most if lengths == "equal" else 0 < tokens < most for tokens in written)
