"""The second door: preference data that others have collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixdpo.config.data import PreferenceColumns, PreferenceFiles, Splits
from mixdpo.data.schema import SPLITS, split_of, text_id, unit_hash
from mixdpo.data.sources import plain_json
from mixdpo.data.tables import Row, as_text, find_files, read_rows
from mixdpo.errors import DataError
from mixdpo.files import canonical_json, digest

UNKNOWN_DOMAIN = "unknown"


def read_preferences(source: PreferenceFiles, inputs: Path, splits: Splits) -> list[dict[str, Any]]:
    """Rows of the PREFERENCES schema from files of (prompt, chosen, rejected, annotator, metadata).

    Without an annotator column each pair is its own annotator. Without a split column the prompt's hash decides, so
    that no prompt is in two splits. `limit` takes whole annotators, by hash, as far as it reaches (the last may be
    cut off), so that those who stay keep their comparisons.

    Raises:
        DataError: no such file or column, no rows, or a cell that is empty or not what it should be.
    """
    columns = source.columns
    rows = [
        _preference(row, columns, splits)
        for path in find_files(source.paths, inputs)
        for row in read_rows(path, _needed(columns), text=[columns.prompt, columns.chosen, columns.rejected])
    ]
    if not rows:
        raise DataError(f"{', '.join(source.paths)} has no rows; name files with preferences")
    _name_pairs(rows, columns.annotator is None)
    if source.limit is not None and source.limit < len(rows):
        rows.sort(key=lambda row: (unit_hash(row["annotator"], "limit"), row["annotator"], row["pair_id"]))
        rows = rows[: source.limit]
    return rows


def _needed(columns: PreferenceColumns) -> list[str]:
    optional = (columns.annotator, columns.style, columns.domain, columns.split)
    named = [columns.prompt, columns.chosen, columns.rejected, *filter(None, optional), *columns.metadata]
    return list(dict.fromkeys(named))


def _preference(row: Row, columns: PreferenceColumns, splits: Splits) -> dict[str, Any]:
    prompt, chosen, rejected = (_filled(row, name) for name in (columns.prompt, columns.chosen, columns.rejected))
    prompt_id = text_id(prompt)
    return {
        "prompt_id": prompt_id,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_finished": True,
        "rejected_finished": True,
        "annotator": None if columns.annotator is None else _name(row, columns.annotator),
        "style": None if columns.style is None or row.values[columns.style] is None else str(row.values[columns.style]),
        "domain": UNKNOWN_DOMAIN if columns.domain is None else _name(row, columns.domain),
        "split": split_of(prompt_id, splits.validation, splits.test)
        if columns.split is None
        else _split(row, columns.split),
        "metadata": canonical_json({name: plain_json(row.values[name]) for name in columns.metadata}).decode("utf-8"),
    }


def _filled(row: Row, column: str) -> str:
    if text := as_text(row, column):
        return text
    raise DataError(f"{row.origin}: column {column} is empty, expected text; fill it in or remove the row")


def _name(row: Row, column: str) -> str:
    value = row.values[column]
    if value is None or str(value) == "":
        raise DataError(
            f"{row.origin}: column {column} is empty, expected a name; fill it in, remove the row, "
            "or set the column to null in params.yaml"
        )
    return str(value)


def _split(row: Row, column: str) -> str:
    value = row.values[column]
    if value not in SPLITS:
        raise DataError(
            f"{row.origin}: column {column} holds {value!r}, expected one of {', '.join(SPLITS)}; "
            "rename it, or set columns.split to null to split by the prompt's hash"
        )
    return str(value)


def _name_pairs(rows: Sequence[dict[str, Any]], own_annotators: bool) -> None:
    """Give each row its pair_id: a digest of what it says, and of how often that was said before if it was."""
    seen: Counter[str] = Counter()
    for row in rows:
        said = [row["prompt"], row["chosen"], row["rejected"], row["annotator"]]
        pair_id = digest(said)
        seen[pair_id] += 1
        row["pair_id"] = pair_id if seen[pair_id] == 1 else digest([*said, seen[pair_id]])
        if own_annotators:
            row["annotator"] = f"pair-{row['pair_id'][:16]}"
