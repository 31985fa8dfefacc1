"""Rows from files that users bring: globs of Parquet, CSV and JSON lines, read column by column and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mixdpo.config.data import reads_arrivals
from mixdpo.data.batches import check_unchanged
from mixdpo.errors import DataError

SUFFIXES = (".parquet", ".csv", ".jsonl")
AT_ONCE = 1000  # rows that are Python objects at once
BUFFER = 1 << 20  # bytes of a Parquet column that are read ahead


class Row(NamedTuple):
    """One row and where it stands, for messages (`row 3 of books.csv`, counted from 1)."""

    origin: str
    values: dict[str, Any]


def find_files(patterns: Sequence[str], inputs: Path) -> list[Path]:
    """The files below `inputs` that match each glob, in order, each once; hidden ones are being written, and left.

    Raises:
        DataError: a pattern matches nothing (unless it names what arrives: none may have, yet), leaves `inputs`, or
            names a format that is not read here; or an arrived file is not as it came.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise DataError(f"path {pattern} leaves the inputs directory {inputs}; name a file or glob below it")
        matches = sorted(path for path in inputs.glob(pattern) if path.is_file() and not _hidden(path, inputs))
        if not matches and not reads_arrivals((pattern,)):
            raise DataError(
                f"no file matches {pattern} below {inputs}, which has {_listing(inputs)}; "
                "put the file there, or correct `inputs` or the path in params.yaml"
            )
        for path in matches:
            if path.suffix not in SUFFIXES:
                raise DataError(f"{path} is none of {', '.join(SUFFIXES)}; convert it, or narrow the glob {pattern}")
            check_unchanged(path, inputs)
        found.update(dict.fromkeys(matches))
    return list(found)


def _hidden(path: Path, inputs: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(inputs).parts)


def _listing(directory: Path, most: int = 8) -> str:
    if not directory.is_dir():
        return "no such directory"
    names = sorted(path.name for path in directory.iterdir())
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"


def read_rows(path: Path, columns: Sequence[str], text: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of one file with these columns only; nulls are None. Columns in `text` are never taken for numbers.

    Raises:
        DataError: the file cannot be read, or lacks a column (the message lists those it has).
    """
    try:
        match path.suffix:
            case ".parquet":
                yield from _parquet(path, columns)
            case ".csv":
                yield from _csv(path, columns, text)
            case _:
                yield from _jsonl(path, columns)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable {path.suffix} file ({error}); write it again") from error


def numbered(batches: Iterable[list[dict[str, Any]]], origin: str) -> Iterator[Row]:
    """Rows of these batches with their place in `origin`."""
    number = 0
    for batch in batches:
        for values in batch:
            number += 1
            yield Row(f"row {number} of {origin}", values)


def require_columns(columns: Sequence[str], present: Sequence[str], origin: str) -> None:
    """Raises DataError where `origin` lacks one of `columns`."""
    if missing := [name for name in columns if name not in present]:
        raise DataError(
            f"{origin} has no column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has {', '.join(present)}; "
            "correct `columns` in params.yaml"
        )


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    with pq.ParquetFile(path, buffer_size=BUFFER) as file:
        require_columns(columns, file.schema_arrow.names, str(path))
        batches = file.iter_batches(AT_ONCE, columns=list(columns))
        yield from numbered((batch.to_pylist() for batch in batches), path.name)


def _csv(path: Path, columns: Sequence[str], text: Sequence[str]) -> Iterator[Row]:
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(path, parse_options=parsing) as reader:
        require_columns(columns, reader.schema.names, str(path))
    # a column's type is that of all its values, so it takes a pass of its own; texts need none
    others = [name for name in columns if name not in text]
    types = dict.fromkeys(text, pa.string())
    if others:
        only = pyarrow.csv.ConvertOptions(include_columns=others)
        found = pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=only).schema
        types |= {field.name: field.type for field in found}
    options = pyarrow.csv.ConvertOptions(include_columns=list(columns), column_types=types)
    with pyarrow.csv.open_csv(path, parse_options=parsing, convert_options=options) as reader:
        pieces = (piece for batch in reader for piece in pa.Table.from_batches([batch]).to_batches(AT_ONCE))
        yield from numbered((piece.to_pylist() for piece in pieces), path.name)


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    # a field may be left out of some lines, but one that no line has is a wrong name
    present: dict[str, None] = {}
    for _, values in _json_lines(path):
        present |= dict.fromkeys(values)
        if present.keys() >= set(columns):
            break
    if present:
        require_columns(columns, list(present), str(path))
    for origin, values in _json_lines(path):
        yield Row(origin, {name: values.get(name) for name in columns})


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            try:
                values = json.loads(line) if line.strip() else None
            except json.JSONDecodeError as error:
                raise DataError(f"row {number} of {path} is not JSON ({error}); correct or remove that line") from error
            if values is None:
                continue
            if not isinstance(values, dict):
                raise DataError(f"row {number} of {path} is {type(values).__name__}, not a JSON object; correct it")
            yield Row(f"row {number} of {path.name}", values)


def as_text(row: Row, column: str) -> str:
    """The text in `column`; a null is an empty text. Raises DataError for anything else."""
    value = row.values[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{row.origin}: column {column} holds {value!r} ({type(value).__name__}), expected text; "
            "correct the row, or name the column that holds the text"
        )
    return value
