"""The tables that stages hand to each other, and how rows get their ids and splits.

Every table is Parquet. `metadata` columns hold canonical JSON objects, so that any source's extra fields fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixdpo.errors import DataError
from mixdpo.files import replacing

# rows that are read and written at once
ROW_GROUP = 1 << 16
AT_ONCE = 1 << 10  # rows that are Python objects at once

SPLITS = ("train", "validation", "test")

REVIEWS = pa.schema(
    [
        ("review_id", pa.string()),  # sha256 of the cleaned text
        ("text", pa.string()),
        ("domain", pa.string()),  # movie, book, …
        ("stars", pa.float64()),  # 1 to 5, null where unknown
        ("label", pa.int8()),  # 1 positive, 0 negative, null where unknown or neutral
        ("user_id", pa.string()),  # null where unknown
        ("split", pa.string()),  # by hash of review_id: never moves when data grows
        ("metadata", pa.string()),  # JSON object
    ]
)
CANDIDATES = pa.schema(
    [
        ("candidate_id", pa.string()),
        ("prompt_id", pa.string()),  # sha256 of the prompt
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("finished", pa.bool_()),  # ended by itself; false: cut at max_new_tokens
        ("domain", pa.string()),
        ("split", pa.string()),
    ]
)
PREFERENCES = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_finished", pa.bool_()),
        ("rejected_finished", pa.bool_()),
        ("annotator", pa.string()),
        ("style", pa.string()),  # for evaluation only (training never sees it); null where unknown
        ("domain", pa.string()),
        ("split", pa.string()),
        ("metadata", pa.string()),
    ]
)


def scores_schema(dimensions: Sequence[str]) -> pa.Schema:
    """CANDIDATES and one float64 column in [0, 1] a reward dimension, as scored by the *annotator* models."""
    return pa.schema(list(CANDIDATES) + [(dimension, pa.float64()) for dimension in dimensions])


def text_id(text: str) -> str:
    """sha256 (hex) of a text: the id of a review or a prompt."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def unit_hash(identifier: str, salt: str) -> float:
    """A number in [0, 1) that depends on `identifier` and `salt` alone; other salts give independent numbers."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{identifier}".encode()).digest()[:8], "big") / 2**64


def split_of(identifier: str, validation: float, test: float) -> str:
    """The split of a review or prompt id. Fractions are of the whole; the rest is train."""
    place = unit_hash(identifier, "split")
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"


def role_of(identifier: str) -> str:
    """Which reward models may learn from this review: `annotator` or `judge`, never both."""
    return "annotator" if unit_hash(identifier, "role") < 0.5 else "judge"


def write_table(path: Path, rows: Sequence[dict[str, Any]] | pa.Table, schema: pa.Schema) -> None:
    """Write rows as Parquet, whole or not at all. Columns and types are `schema`'s, in its order."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    write_tables(path, [table], schema)


def write_tables(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables one below the other, as `write_table` does one; only one need be in memory."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.select(schema.names).cast(schema), row_group_size=ROW_GROUP)


def write_rows(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as `write_table` does, to the same bytes; a row group of them is in memory."""
    write_tables(path, _row_groups(rows, schema), schema)


def _row_groups(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    # dicts are many times the size of their columns
    pieces = (pa.Table.from_pylist(piece, schema=schema) for piece in in_batches(rows, AT_ONCE))
    while group := list(islice(pieces, ROW_GROUP // AT_ONCE)):
        yield pa.concat_tables(group).combine_chunks()


def in_batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Lists of `size` rows, the last of what is left."""
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read Parquet; with `schema`, refuse a table that lacks one of its columns.

    Raises:
        DataError: the file is missing, not Parquet, or lacks a column.
    """
    with open_table(path, schema) as file:
        return file.read()


def stream_rows(path: Path, schema: pa.Schema, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a table with these columns, one by one. Raises as `read_table`."""
    with open_table(path, schema) as file:
        for batch in file.iter_batches(AT_ONCE, columns=list(columns)):
            yield from batch.to_pylist()


@contextmanager
def open_table(path: Path, schema: pa.Schema | None = None) -> Iterator[pq.ParquetFile]:
    """Open Parquet to be read in the body, a part at a time. Raises as `read_table`."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; run the stage that writes it first (`dvc repro` runs all)")
    try:
        # without read-ahead of its own a column of a row group is read whole
        with pq.ParquetFile(path, buffer_size=1 << 20) as file:
            names = file.schema_arrow.names
            missing = [name for name in schema.names if name not in names] if schema is not None else []
            if missing:
                raise DataError(
                    f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has "
                    f"{', '.join(names)}; run the stage that writes it again"
                )
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file ({error}); write it again") from error
