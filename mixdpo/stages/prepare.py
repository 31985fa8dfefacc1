"""Stage prepare: reviews from their source, cleaned, with ids and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixdpo.config import Params
from mixdpo.data.cleaning import Cleaned, clean_reviews
from mixdpo.data.schema import REVIEWS, SPLITS, split_of, write_table
from mixdpo.data.sources import read_reviews
from mixdpo.errors import DataError
from mixdpo.files import canonical_json, write_json
from mixdpo.layout import Layout

LABELS = {1: "positive", 0: "negative", None: "unlabelled"}


def run(params: Params, layout: Layout) -> list[Path]:
    """Write data/prepared/reviews.parquet and metrics/prepare.json.

    Raises:
        DataError: the source is not what it should be, or cleaning leaves nothing.
        ModelError: a data set cannot be had from the Hub.
    """
    raw = read_reviews(params.source, layout.root / params.inputs)
    cleaned = clean_reviews(raw, params.cleaning)
    if not cleaned.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in cleaned.dropped.items() if count)
        raise DataError(f"cleaning left none of {len(raw)} reviews ({reasons}); loosen `cleaning` in params.yaml")
    rows = [
        {
            **row,
            "split": split_of(row["review_id"], params.splits.validation, params.splits.test),
            "metadata": canonical_json(row["metadata"]).decode("utf-8"),
        }
        for row in cleaned.rows
    ]
    write_table(layout.prepared_reviews, rows, REVIEWS)
    write_json(layout.metrics("prepare"), _metrics(len(raw), cleaned, rows))
    return [layout.prepared_reviews, layout.metrics("prepare")]


def _metrics(rows_in: int, cleaned: Cleaned, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    words = sum(len(row["text"].split()) for row in rows)
    users = {row["user_id"] for row in rows} - {None}
    return {
        "schema": 1,
        "rows_in": rows_in,
        "rows_kept": len(rows),
        "dropped": cleaned.dropped,
        "cut": cleaned.cut,
        "domains": dict(Counter(row["domain"] for row in rows)),
        "splits": dict.fromkeys(SPLITS, 0) | Counter(row["split"] for row in rows),
        "labels": dict.fromkeys(LABELS.values(), 0) | Counter(LABELS[row["label"]] for row in rows),
        "users": len(users),
        "mean_words": round(words / len(rows), 2),
    }
