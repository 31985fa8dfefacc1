"""What holds for any engine, on the one that needs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mixdpo.engine import Function, map_shards, read_shards, slices
from mixdpo.engine.local import InProcess
from mixdpo.engine.shards import content
from mixdpo.errors import DataError

TABLE = pa.table({"number": list(range(10)), "name": [f"row {n}" for n in range(10)]})
SHARDS = slices(TABLE, 3)


@dataclass(frozen=True)
class Square:
    """Notes each shard in `log`; refuses the number `bad`."""

    log: Path
    bad: int | None = None

    def load(self) -> Function:
        self._note("load")
        return self._square

    def _square(self, rows: pa.Table) -> pa.Table:
        numbers = rows["number"]
        if self.bad in numbers.to_pylist():
            raise DataError(f"{self.bad} is not to be squared; leave it out")
        self._note(f"{numbers[0]}")
        return pa.table({"square": pc.multiply(numbers, numbers)})

    def _note(self, line: str) -> None:
        with self.log.open("a") as handle:
            handle.write(line + "\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_results_are_in_the_order_of_the_shards(log: Path, tmp_path: Path) -> None:
    paths = map_shards(InProcess(), Square(log), SHARDS, tmp_path / "work", "squaring")
    assert [len(rows) for rows in SHARDS] == [3, 3, 3, 1]
    assert read_shards(paths)["square"].to_pylist() == [n * n for n in range(10)]
    assert log.read_text().split() == ["load", "0", "3", "6", "9"]


def test_a_run_goes_on_from_what_is_finished(log: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(DataError, match=r"^squaring, shard 3 of 4: 7 is not to be squared; leave it out"):
        map_shards(InProcess(), Square(log, bad=7), SHARDS, work, "squaring")
    paths = map_shards(InProcess(), Square(log), SHARDS, work, "squaring")
    assert log.read_text().split() == ["load", "0", "3", "load", "6", "9"]
    # with all finished, no model is loaded
    assert map_shards(InProcess(), Square(log), SHARDS, work, "squaring") == paths
    assert log.read_text().split()[-1] == "9"


def test_a_result_belongs_to_its_rows(log: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    map_shards(InProcess(), Square(log), SHARDS, work, "squaring")
    changed = [SHARDS[3], SHARDS[0], slices(TABLE, 4)[0], SHARDS[0]]
    paths = map_shards(InProcess(), Square(log), changed, work, "squaring")
    assert log.read_text().split()[5:] == ["load", "0"]
    assert read_shards(paths)["square"].to_pylist() == [81, 0, 1, 4, 0, 1, 4, 9, 0, 1, 4]


def test_contents_are_of_values_not_of_buffers(tmp_path: Path) -> None:
    texts = [None if n % 3 == 0 else f"text {n}" for n in range(40)]
    table = pa.table({"text": texts, "flag": [n % 5 == 0 for n in range(40)], "place": list(range(40))})
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=7)
    again = pq.read_table(tmp_path / "table.parquet").replace_schema_metadata({"made": "elsewhere"})
    found = [content(rows) for rows in slices(table, 9)]
    assert found == [content(rows) for rows in slices(again, 9)]
    assert found == [content(pa.Table.from_pylist(rows.to_pylist(), rows.schema)) for rows in slices(table, 9)]
    assert len(set(found)) == 5
    assert content(table) != content(table.rename_columns(["text", "flag", "row"]))
    assert content(table.slice(0, 1)) != content(table.slice(1, 1))


def test_what_is_no_whole_file_is_made_again(log: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    paths = map_shards(InProcess(), Square(log), SHARDS, work, "squaring")
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:-4])
    assert map_shards(InProcess(), Square(log), SHARDS, work, "squaring") == paths
    assert read_shards(paths)["square"].to_pylist() == [n * n for n in range(10)]
    assert log.read_text().split()[5:] == ["load", "3", "6"]


def test_no_rows_need_no_model(log: Path, tmp_path: Path) -> None:
    assert map_shards(InProcess(), Square(log), slices(TABLE.slice(0, 0), 3), tmp_path, "squaring") == []
    assert not log.exists()


def test_a_fault_of_the_code_tells_its_shard(log: Path, tmp_path: Path) -> None:
    shards = [SHARDS[0], SHARDS[1].rename_columns(["other", "name"])]
    with pytest.raises(KeyError, match="number") as caught:
        map_shards(InProcess(), Square(log), shards, tmp_path / "work", "squaring")
    assert caught.value.__notes__ == ["squaring, shard 2 of 2"]
