"""Reviews from wherever they are, as one kind of raw row."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from mixdpo.config.data import EmbeddedSource, FileSet, FilesSource, HubSet, HubSource, ReviewSet
from mixdpo.data.batches import batch_number
from mixdpo.data.embedded import stream_reviews
from mixdpo.data.hub import hub_rows
from mixdpo.data.schema import unit_hash
from mixdpo.data.tables import Row, as_text, find_files, read_rows
from mixdpo.errors import DataError


class RawReview(TypedDict):
    """A review before cleaning; the text may be empty, any HTML, or a duplicate."""

    text: str
    domain: str
    stars: float | None  # 1 to 5
    label: int | None  # 1 positive, 0 negative
    user_id: str | None
    metadata: dict[str, Any]
    batch: int  # the batch of arrivals that it came with, 0 where it was there from the start


def read_reviews(source: EmbeddedSource | FilesSource | HubSource, inputs: Path) -> Iterator[RawReview]:
    """All reviews that params.yaml asks for; `inputs` is the directory that the source's paths are relative to.

    They come one by one; in memory are those of one set at most where it has a `limit`.

    Raises:
        DataError: no such file or column, an empty set, or a row whose text, stars or label is not what it should be.
        ModelError: a data set cannot be had from the Hub.
    """
    if isinstance(source, EmbeddedSource):
        for row in stream_reviews(source.reviews, source.users, source.seed):
            yield RawReview(**row, batch=0)  # type: ignore[typeddict-item]
        return
    for part in source.sets:
        yield from _read_set(part, inputs)


def check_file(path: Path, part: FileSet) -> int:
    """How many rows of a file this set takes.

    Raises:
        DataError: as `read_reviews` would.
    """
    return sum(
        1 for row in _admitted(read_rows(path, _needed(part), text=[part.columns.text]), part) if _review(row, part, 0)
    )


def _read_set(part: FileSet | HubSet, inputs: Path) -> Iterator[RawReview]:
    rows = 0
    for row, batch in _limited(_rows(part, inputs), part):
        rows += 1
        yield _review(row, part, batch)
    if not rows:
        name = part.dataset if isinstance(part, HubSet) else ", ".join(part.paths)
        wanted = " that `only` admits" * (part.only is not None)
        raise DataError(f"{name} has no rows{wanted}; name a set with reviews, or remove it from source.sets")


def _rows(part: FileSet | HubSet, inputs: Path) -> Iterator[tuple[Row, int]]:
    """Rows that the set admits, each with its batch."""
    if isinstance(part, HubSet):
        yield from ((row, 0) for row in _admitted(hub_rows(part, _needed(part), inputs), part))
        return
    for path in find_files(part.paths, inputs):
        batch = batch_number(path, inputs)
        yield from ((row, batch) for row in _admitted(read_rows(path, _needed(part), text=[part.columns.text]), part))


def _needed(part: ReviewSet) -> list[str]:
    columns = part.columns
    named = [columns.text, columns.label, columns.stars, columns.user, *columns.metadata, *(part.only or {})]
    return list(dict.fromkeys(name for name in named if name is not None))


def _admitted(rows: Iterable[Row], part: ReviewSet) -> Iterator[Row]:
    only = part.only or {}
    return (row for row in rows if all(str(row.values[column]) in values for column, values in only.items()))


def _limited(rows: Iterable[tuple[Row, int]], part: ReviewSet) -> Iterable[tuple[Row, int]]:
    """At most `limit` rows: those whose text hashes lowest, so that the choice is fair and stays when the set grows."""
    if part.limit is None:
        return rows
    return heapq.nsmallest(part.limit, rows, key=lambda each: unit_hash(as_text(each[0], part.columns.text), "limit"))


def _review(row: Row, part: ReviewSet, batch: int) -> RawReview:
    columns = part.columns
    stars = None if columns.stars is None else _stars(row, columns.stars)
    user = None if columns.user is None else row.values[columns.user]
    return {
        "text": as_text(row, columns.text),
        "domain": part.domain,
        "stars": stars,
        "label": _label_of(stars) if columns.label is None else _label(row, columns.label, part.labels),
        "user_id": None if user is None else str(user),
        "metadata": {name: plain_json(row.values[name]) for name in columns.metadata},
        "batch": batch,
    }


def _stars(row: Row, column: str) -> float | None:
    value = row.values[column]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 5:
        raise DataError(
            f"{row.origin}: column {column} holds {value!r}, expected stars from 1 to 5; "
            "correct the row, or set columns.stars to null"
        )
    return float(value)


def _label_of(stars: float | None) -> int | None:
    """Positive from 4 stars, negative up to 2, neither between."""
    if stars is None or 2 < stars < 4:
        return None
    return int(stars >= 4)


def _label(row: Row, column: str, labels: dict[str, Any] | None) -> int | None:
    value = row.values[column]
    if value is None:
        return None
    known: dict[Any, int] = {0: 0, 1: 1} if labels is None else labels
    key = value if labels is None else str(value)
    if not isinstance(key, int | float | str) or key not in known:
        raise DataError(
            f"{row.origin}: column {column} holds the label {value!r}, expected one of "
            f"{', '.join(map(str, known))}; correct the row, or translate the value under `labels` in params.yaml"
        )
    return known[key]


def plain_json(value: Any) -> Any:
    """The value as JSON can hold it: what JSON has no form for (dates, NaN …) as text or null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain_json(item) for name, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
