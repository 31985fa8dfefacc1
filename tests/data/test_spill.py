from __future__ import annotations

import random

import pyarrow as pa
import pytest

from mixdpo.data import spill
from mixdpo.data.spill import Column, Sorted, Spilled, scratch
from mixdpo.errors import DataError

SCHEMA = pa.schema([("key", pa.string()), ("value", pa.int64())])


def rows(count, keys=50):
    rng = random.Random(0)
    return [{"key": f"k{rng.randrange(keys)}", "value": number} for number in range(count)]


@pytest.mark.parametrize(("run", "block"), [(8, 4), (64, 64), (1024, 16)])
def test_order_is_that_of_a_stable_sort_whatever_the_runs(tmp_path, monkeypatch, run, block):
    monkeypatch.setattr(spill, "RUN", run)
    monkeypatch.setattr(spill, "BLOCK", block)
    for count in (0, 1, run, run + 1, 300):
        given = rows(count)
        found = Sorted(tmp_path / "a", iter(given), SCHEMA, "key")
        for _ in range(2):
            assert list(found) == sorted(given, key=lambda row: row["key"])
        assert list(Column(found, "value")) == [row["value"] for row in found]
        both = Sorted(tmp_path / "b", iter(given), SCHEMA, "key", "value")
        assert list(both) == sorted(given, key=lambda row: (row["key"], row["value"]))


def test_spilled_rows_can_be_gone_through_again(tmp_path):
    given = rows(200)
    spilled = Spilled(tmp_path / "a", iter(given), SCHEMA)
    values = Column(spilled, "value")
    assert len(spilled) == len(values) == 200
    for _ in range(2):
        assert list(spilled) == given
        assert list(values) == [row["value"] for row in given]


def test_scratch_is_empty_and_gone_afterwards_however_it_ends(tmp_path):
    path = tmp_path / "work" / "spilled"
    path.mkdir(parents=True)
    (path / "left").touch()

    def fail():
        with scratch(path) as directory:
            assert not list(directory.iterdir())
            (directory / "rows").touch()
            raise DataError("no")

    with pytest.raises(DataError):
        fail()
    assert not path.exists()
