"""Numbers by the content of what they are of, in memory and as Parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo.data.schema import read_table, write_table
from mixdpo.errors import DataError

Keys = NDArray[np.bytes_]  # 32 bytes each
Values = NDArray[np.float32]

BYTES = 32


def content_keys(contents: Iterable[tuple[str | bool, ...]]) -> Keys:
    """sha256 of each content, the same for equal contents only."""
    found = [_digest(content) for content in contents]
    return np.frombuffer(b"".join(found), dtype=f"S{BYTES}")


def _digest(content: tuple[str | bool, ...]) -> bytes:
    hashed = hashlib.sha256()
    for part in content:
        data = str(part).encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.digest()


@dataclass(frozen=True)
class Known:
    """Rows of numbers by key.

    Attributes:
        keys: (rows,) in order, each once.
        values: (rows, width).
    """

    keys: Keys
    values: Values

    @classmethod
    def of(cls, keys: Keys, values: Values) -> Known:
        """Keys in any order; of equal ones the first counts."""
        ordered, first = np.unique(keys, return_index=True)
        return cls(ordered, values[first])

    @classmethod
    def nothing(cls, width: int = 0) -> Known:
        return cls(np.empty(0, f"S{BYTES}"), np.empty((0, width), np.float32))

    @classmethod
    def read(cls, path: Path) -> Known:
        """A file that `write` wrote. Raises DataError where it is no such file."""
        table = read_table(path, pa.schema([("key", pa.binary(BYTES)), ("values", pa.null())]))
        if table.schema.field("key").type != pa.binary(BYTES) or not pa.types.is_fixed_size_list(
            table.schema.field("values").type
        ):
            raise DataError(f"{path} has other columns than this version writes; delete it, it will be written again")
        return cls(_keys(table), _values(table))

    def write(self, path: Path) -> None:
        """One Parquet file, whole or not at all: `key` (32 bytes) and `values` (a list of float32 of one length)."""
        keys = pa.Array.from_buffers(pa.binary(BYTES), len(self.keys), [None, pa.py_buffer(self.keys)])
        kind = pa.list_(pa.float32(), self.values.shape[1])
        values = pa.FixedSizeListArray.from_arrays(pa.array(self.values.ravel()), type=kind)
        write_table(path, pa.table({"key": keys, "values": values}), pa.schema([("key", keys.type), ("values", kind)]))

    def __len__(self) -> int:
        return len(self.keys)

    def places(self, keys: Keys) -> NDArray[np.int64]:
        """The row of each key, -1 where it is not known."""
        if not len(self):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self) - 1)
        return np.where(self.keys[places] == keys, places, -1)

    def missing(self, keys: Keys) -> NDArray[np.int64]:
        """Where in `keys` those stand that are not known, each once, in order."""
        unknown = np.flatnonzero(self.places(keys) < 0)
        _, first = np.unique(keys[unknown], return_index=True)
        return unknown[np.sort(first)]

    def take(self, keys: Keys) -> Values:
        """(keys, width). Raises KeyError for a key that is not known."""
        places = self.places(keys)
        if (unknown := np.flatnonzero(places < 0)).size:
            raise KeyError(f"{unknown.size} of {len(keys)} keys are not known, key {unknown[0]} first")
        return self.values[places]

    def only(self, keys: Keys) -> Known:
        """The rows of these keys alone, which are all known."""
        different = np.unique(keys)
        return Known(different, self.take(different))

    @classmethod
    def union(cls, parts: Sequence[Known]) -> Known:
        """The rows of all parts; of equal keys those of the first."""
        parts = [part for part in parts if len(part)]
        if len(parts) < 2:
            return parts[0] if parts else cls.nothing()
        return cls.of(np.concatenate([part.keys for part in parts]), np.concatenate([part.values for part in parts]))


def _keys(table: pa.Table) -> Keys:
    column = table["key"].combine_chunks()
    return np.frombuffer(column.buffers()[1], dtype=f"S{BYTES}")[column.offset : column.offset + len(column)]


def _values(table: pa.Table) -> Values:
    column: Any = table["values"].combine_chunks()
    values: Values = column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)
    return values
