"""A table's shards, read from its file one at a time: memory does not grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import overload

import pyarrow as pa

from mixdpo.data.schema import open_table


class FileShards(Sequence[pa.Table]):
    """The rows of a Parquet file, `size` a shard; one row group of them is in memory.

    Args:
        schema: the columns that are wanted.

    Raises:
        DataError: the file is missing, not Parquet, or lacks a column.
    """

    def __init__(self, path: Path, schema: pa.Schema, size: int) -> None:
        self.path, self.schema, self.size = path, schema, size
        with open_table(path, schema) as file:
            groups = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]
        self._ends: list[int] = [0, *accumulate(groups)]
        self._kept: tuple[int, pa.Table] = -1, schema.empty_table()

    @property
    def rows(self) -> int:
        return self._ends[-1]

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    @overload
    def __getitem__(self, place: int) -> pa.Table: ...
    @overload
    def __getitem__(self, place: slice) -> list[pa.Table]: ...
    def __getitem__(self, place: int | slice) -> pa.Table | list[pa.Table]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(f"shard {place} of {len(self)}")
        first, last = place * self.size, min((place + 1) * self.size, self.rows)
        parts = [
            self._group(group).slice(max(first - start, 0), min(last, end) - max(first, start))
            for group, (start, end) in enumerate(pairwise(self._ends))
            if start < last and first < end
        ]
        return pa.concat_tables(parts)

    def _group(self, group: int) -> pa.Table:
        if self._kept[0] != group:
            with open_table(self.path, self.schema) as file:
                self._kept = group, file.read_row_group(group, columns=self.schema.names)
        return self._kept[1]
