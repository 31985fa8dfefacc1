"""Stage prepare: reviews from their source, cleaned, with ids and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mixdpo.config import Params
from mixdpo.config.data import Splits
from mixdpo.data.cleaning import Tally, clean_reviews
from mixdpo.data.schema import REVIEWS, SPLITS, split_of, write_rows
from mixdpo.data.sources import read_reviews
from mixdpo.data.spill import scratch
from mixdpo.errors import DataError
from mixdpo.files import write_json
from mixdpo.layout import Layout

LABELS = {1: "positive", 0: "negative", None: "unlabelled"}


def run(params: Params, layout: Layout) -> list[Path]:
    """Write data/prepared/reviews.parquet and metrics/prepare.json.

    Raises:
        DataError: the source is not what it should be, or cleaning leaves nothing.
        ModelError: a data set cannot be had from the Hub.
    """
    tally, figures = Tally(), Figures()
    with scratch(layout.work("prepare", "spilled")) as spill:
        raw = read_reviews(params.source, layout.root / params.inputs)
        cleaned = clean_reviews(raw, params.cleaning, tally, spill)
        rows = ({**row, "split": _split(row, params.splits)} for row in cleaned)
        write_rows(layout.prepared_reviews, _counted(rows, tally, figures), REVIEWS)
    write_json(layout.metrics("prepare"), figures.record(tally))
    return [layout.prepared_reviews, layout.metrics("prepare")]


def _split(row: dict[str, Any], splits: Splits) -> str:
    return split_of(row["review_id"], splits.validation, splits.test)


def _counted(rows: Iterable[dict[str, Any]], tally: Tally, figures: Figures) -> Iterator[dict[str, Any]]:
    """The rows, once through `figures`. Raises DataError where there are none."""
    for row in rows:
        figures.add(row)
        yield row
    if not figures.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.dropped.items() if count)
        raise DataError(f"cleaning left none of {tally.read} reviews ({reasons}); loosen `cleaning` in params.yaml")


class Figures:
    """What metrics/prepare.json says of the rows that were kept."""

    def __init__(self) -> None:
        self.rows = 0
        self._words = 0
        self._users: set[str] = set()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in ("domain", "split", "label")}

    def add(self, row: dict[str, Any]) -> None:
        self.rows += 1
        self._words += len(row["text"].split())
        if row["user_id"] is not None:
            self._users.add(row["user_id"])
        for name, counts in self._counts.items():
            counts[LABELS[row[name]] if name == "label" else row[name]] += 1

    def record(self, tally: Tally) -> dict[str, Any]:
        return {
            "schema": 1,
            "rows_in": tally.read,
            "rows_kept": self.rows,
            "dropped": tally.dropped,
            "cut": tally.cut,
            "domains": dict(self._counts["domain"]),
            "splits": dict.fromkeys(SPLITS, 0) | self._counts["split"],
            "labels": dict.fromkeys(LABELS.values(), 0) | self._counts["label"],
            "users": len(self._users),
            "mean_words": round(self._words / self.rows, 2),
        }
