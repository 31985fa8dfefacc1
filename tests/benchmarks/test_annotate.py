"""Both sides give the same scores at the tiny size, on generated reviews and on a file of them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]
KEYS = {
    *("benchmark", "size", "models", "dtype", "device", "ours_texts_per_s", "pipeline_texts_per_s", "ratio"),
    *("ours_peak_mb", "pipeline_peak_mb", "pipeline_batch_size"),
}
ARGUMENTS = ("--size", "tiny", "--batches", "1,4", "--threads", "1", "--rounds", "1", "--clock", "cpu", "--json")


@pytest.fixture
def benchmark(monkeypatch):
    """Gives modules of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    return importlib.import_module


def test_both_sides_score_the_same(benchmark):
    result = CliRunner().invoke(benchmark("annotate").main, [*ARGUMENTS, "--texts", "12", "--models", "2"])
    assert result.exit_code == 0, result.output
    (row,) = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    assert row.keys() >= KEYS
    assert (row["models"], row["reviews"]) == (2, "generated")
    assert row["score_difference"] < 1e-5
    assert row["ratios"].keys() == {"1", "4"}
    assert row["ratio"] == row["ratios"][str(row["pipeline_batch_size"])]
    assert row["tokens"]["min"] < row["tokens"]["median"] < row["tokens"]["max"]


def test_reviews_may_come_from_a_file(benchmark, tmp_path):
    texts = [f"This film has {count} scenes." for count in range(12)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "mine.parquet")
    sides = benchmark("annotate_sides")
    case = sides.Case("tiny", 1, "fp32", "cpu", 1, 5, "short", tmp_path / "mine.parquet")
    found = sides.texts_of(case)
    assert len(set(found)) == 5
    assert set(found) < set(texts)
    assert found == sides.texts_of(case)


@pytest.mark.parametrize("lengths", ["short", "films", "books"])
def test_generated_reviews_are_as_long_as_is_said(benchmark, lengths):
    sides = benchmark("annotate_sides")
    texts = sides.texts_of(sides.Case("tiny", 1, "fp32", "cpu", 1, 400, lengths, None))
    tokens = np.array([len(row) for row in sides.tokenizer()(texts)["input_ids"]])
    stated = sides.LENGTHS[lengths]
    assert np.median(tokens) == pytest.approx(stated.median, rel=0.25)
    assert tokens.max() < 1.3 * stated.longest
