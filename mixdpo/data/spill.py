"""Rows that wait on disk, so that their number does not show in memory: as they came, or sorted by a column."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from mixdpo.data.schema import in_batches
from mixdpo.files import storage_errors

RUN = 1 << 14  # rows that are sorted in memory
BLOCK = 64  # rows of one run that are read at once: all runs are, while they are merged
COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")

Record = dict[str, Any]


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """An empty directory, gone after the body.

    Raises:
        StorageError: the body found no space left, or may not write there.
    """
    shutil.rmtree(directory, ignore_errors=True)
    try:
        with storage_errors(directory):
            directory.mkdir(parents=True)
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Spilled:
    """Rows of one schema in a file, to be gone through any number of times; a block of them is in memory."""

    def __init__(self, path: Path, rows: Iterable[Record], schema: pa.Schema) -> None:
        self._rows = 0
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=COMPRESSED) as writer:
            for block in in_batches(rows, BLOCK):
                writer.write_batch(pa.RecordBatch.from_pylist(block, schema))
                self._rows += len(block)
        self._reader = pa.ipc.open_file(pa.OSFile(str(path)))

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Record]:
        return self.blocks(0, self._reader.num_record_batches)

    def values(self, column: str) -> Iterator[Any]:
        """What stands in one column; the others are left as they are."""
        for number in range(self._reader.num_record_batches):
            yield from self._reader.get_batch(number)[column].to_pylist()

    def blocks(self, first: int, last: int) -> Iterator[Record]:
        """The rows of these blocks."""
        for number in range(first, last):
            yield from self._reader.get_batch(number).to_pylist()


class Sorted(Spilled):
    """Spilled rows in ascending order of some columns; those that are equal there in the order they came.

    Runs of `RUN` rows are sorted in memory and laid down, and merged whenever they are gone through. In memory are one
    run or a block of each: 4 bytes a row for rows of a kilobyte.
    """

    def __init__(self, path: Path, rows: Iterable[Record], schema: pa.Schema, *columns: str) -> None:
        self._key = itemgetter(*columns)
        self._runs: list[tuple[int, int]] = []
        super().__init__(path, self._sorted_runs(rows), schema)

    def __iter__(self) -> Iterator[Record]:
        return heapq.merge(*(self.blocks(*run) for run in self._runs), key=self._key)

    def values(self, column: str) -> Iterator[Any]:
        return (row[column] for row in self)

    def _sorted_runs(self, rows: Iterable[Record]) -> Iterator[Record]:
        start = 0
        for run in in_batches(rows, RUN):
            run.sort(key=self._key)
            end = start - (-len(run) // BLOCK)
            self._runs.append((start, end))
            start = end
            yield from run


class Column:
    """One column of spilled rows, to be gone through any number of times."""

    def __init__(self, rows: Spilled, name: str) -> None:
        self._rows, self._name = rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows.values(self._name)
