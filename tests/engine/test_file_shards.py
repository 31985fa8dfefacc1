"""Shards from a file are those of the table in it, whatever its row groups."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo.data import schema
from mixdpo.data.schema import read_table, write_tables
from mixdpo.engine import FileShards, slices
from mixdpo.errors import DataError

TABLE = pa.table({"number": list(range(11)), "name": [f"row {n}" for n in range(11)], "left": ["out"] * 11})
WANTED = pa.schema([("number", pa.int64()), ("name", pa.string())])


@pytest.mark.parametrize("group", [1, 3, 4, 5, 11, 100])
@pytest.mark.parametrize("size", [1, 4, 11, 20])
def test_shards_are_slices_of_the_table(tmp_path: Path, group: int, size: int) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet", row_group_size=group)
    shards = FileShards(tmp_path / "t.parquet", WANTED, size)
    wanted = slices(TABLE.select(WANTED.names), size)
    assert shards.rows == 11
    assert len(shards) == len(wanted)
    assert [shard.to_pylist() for shard in shards] == [each.to_pylist() for each in wanted]
    assert shards[1:] == wanted[1:]
    with pytest.raises(IndexError):
        shards[len(wanted)]


def test_no_rows_are_no_shards(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "t.parquet")
    assert list(FileShards(tmp_path / "t.parquet", WANTED, 4)) == []


def test_a_column_that_is_missing_is_named_before_anything_is_read(tmp_path: Path) -> None:
    pq.write_table(TABLE.select(["number"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet lacks the column name; it has number; run the stage"):
        FileShards(tmp_path / "t.parquet", WANTED, 4)


def test_tables_written_one_by_one_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "ROW_GROUP", 2)
    path = tmp_path / "t.parquet"
    write_tables(path, slices(TABLE, 3), WANTED)
    assert read_table(path).equals(TABLE.select(WANTED.names))
    assert max(pq.ParquetFile(path).metadata.row_group(n).num_rows for n in range(7)) == 2


def test_tables_that_fail_half_way_leave_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_tables(path, [TABLE], WANTED)
    before = path.read_bytes()
    with pytest.raises(KeyError, match="name"):
        write_tables(path, [TABLE, TABLE.select(["number"])], WANTED)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["t.parquet"]
