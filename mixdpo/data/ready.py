"""The second door: preference data that others have collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mixdpo.config.data import Compared, PreferenceColumns, PreferenceFiles, Splits
from mixdpo.data.schema import SPLITS, split_of, text_id, unit_hash
from mixdpo.data.sources import plain_json
from mixdpo.data.tables import Row, as_text, find_files, read_rows
from mixdpo.errors import DataError
from mixdpo.files import canonical_json, digest

UNKNOWN_DOMAIN = "unknown"


class Ready(NamedTuple):
    """Rows of the PREFERENCES schema, and how many rows of the files became none, by reason."""

    rows: list[dict[str, Any]]
    dropped: dict[str, int]


def read_preferences(source: PreferenceFiles, inputs: Path, splits: Splits) -> Ready:
    """Pairs from files of (prompt, chosen, rejected) or (prompt, first, second, choice), with annotator and metadata.

    Without an annotator column each pair is its own annotator. Without a split column the prompt's hash decides, so
    that no prompt is in two splits. What is left out is counted, in this order:

    ties              neither text was preferred
    few_pairs         the annotator has fewer than `min_pairs` others
    above_annotator   the annotator has more than `per_annotator` in this split; the hash of the pair's id decides
    above_limit       beyond `limit`, which takes whole annotators by hash as far as it reaches (the last may be cut
                      off), so that those who stay keep their comparisons

    Raises:
        DataError: no such file or column, no rows, nothing left, or a cell that is empty or not what it should be.
    """
    columns = source.columns
    found = [
        _preference(row, columns, splits)
        for path in find_files(source.paths, inputs)
        for row in read_rows(path, _needed(columns), text=_texts(columns))
    ]
    if not found:
        raise DataError(f"{', '.join(source.paths)} has no rows; name files with preferences")
    rows = [row for row in found if row is not None]
    _name_pairs(rows, columns.annotator is None)
    left = {"ties": rows}
    left["few_pairs"] = rows = _with_enough_pairs(rows, source.min_pairs)
    left["above_annotator"] = rows = _at_most_of_each(rows, source.per_annotator)
    left["above_limit"] = rows = _at_most(rows, source.limit)
    sizes = [len(found), *map(len, left.values())]
    dropped = {reason: before - after for reason, before, after in zip(left, sizes, sizes[1:], strict=False)}
    if not rows:
        counted = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise DataError(f"none of {len(found)} rows is a pair to learn from ({counted}); loosen preferences.source")
    return Ready(rows, dropped)


def check_file(path: Path, source: PreferenceFiles, splits: Splits) -> int:
    """How many rows a file of preferences has.

    Raises:
        DataError: as `read_preferences` would.
    """
    rows = read_rows(path, _needed(source.columns), text=_texts(source.columns))
    return len([_preference(row, source.columns, splits) for row in rows])


def _prompt_columns(columns: PreferenceColumns) -> tuple[str, ...]:
    return (columns.prompt,) if isinstance(columns.prompt, str) else columns.prompt


def _texts(columns: PreferenceColumns) -> list[str]:
    compared = columns.compared
    sides = (columns.chosen, columns.rejected) if compared is None else (compared.first, compared.second)
    return [*_prompt_columns(columns), *filter(None, sides)]


def _needed(columns: PreferenceColumns) -> list[str]:
    choice = None if columns.compared is None else columns.compared.choice
    optional = (choice, columns.annotator, columns.style, columns.domain, columns.split)
    return list(dict.fromkeys([*_texts(columns), *filter(None, optional), *columns.metadata]))


def _preference(row: Row, columns: PreferenceColumns, splits: Splits) -> dict[str, Any] | None:
    """The pair of one row, or None for a tie."""
    sides = _chosen_and_rejected(row, columns)
    prompt = "".join(_filled(row, name) + columns.separator for name in _prompt_columns(columns))
    prompt_id = text_id(prompt)
    if sides is None:
        return None
    return {
        "prompt_id": prompt_id,
        "prompt": prompt,
        "chosen": _filled(row, sides[0]),
        "rejected": _filled(row, sides[1]),
        "chosen_finished": True,
        "rejected_finished": True,
        "annotator": None if columns.annotator is None else _name(row, columns.annotator),
        "style": None if columns.style is None or row.values[columns.style] is None else str(row.values[columns.style]),
        "domain": UNKNOWN_DOMAIN if columns.domain is None else _name(row, columns.domain),
        "split": split_of(prompt_id, splits.validation, splits.test)
        if columns.split is None
        else _split(row, columns.split, columns.splits),
        "metadata": canonical_json({name: plain_json(row.values[name]) for name in columns.metadata}).decode("utf-8"),
    }


def _chosen_and_rejected(row: Row, columns: PreferenceColumns) -> tuple[str, str] | None:
    """The columns that hold the two texts, or None for a tie."""
    if columns.compared is None:
        assert columns.chosen is not None
        assert columns.rejected is not None
        return columns.chosen, columns.rejected
    first, second = columns.compared.first, columns.compared.second
    return {"first": (first, second), "second": (second, first), "tie": None}[_choice(row, columns.compared)]


def _choice(row: Row, compared: Compared) -> str:
    value = row.values[compared.choice]
    if value is None or str(value) not in compared.values:
        raise DataError(
            f"{row.origin}: column {compared.choice} holds {value!r}, expected one of {', '.join(compared.values)}; "
            "correct the row, or say what the value means under compared.values in params.yaml"
        )
    return compared.values[str(value)]


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


def _split(row: Row, column: str, translation: dict[str, Any] | None) -> str:
    value = row.values[column]
    known = dict(zip(SPLITS, SPLITS, strict=True)) if translation is None else translation
    if value is None or str(value) not in known:
        raise DataError(
            f"{row.origin}: column {column} holds {value!r}, expected one of {', '.join(known)}; rename it, "
            "translate it with columns.splits, or set columns.split to null to split by the prompt's hash"
        )
    return str(known[str(value)])


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


def _with_enough_pairs(rows: list[dict[str, Any]], least: int | None) -> list[dict[str, Any]]:
    pairs = Counter(row["annotator"] for row in rows)
    return rows if least is None else [row for row in rows if pairs[row["annotator"]] >= least]


def _at_most_of_each(rows: list[dict[str, Any]], most: int | None) -> list[dict[str, Any]]:
    """At most `most` rows of each annotator and split, in the order they came."""
    if most is None:
        return rows
    taken: Counter[tuple[str, str]] = Counter()
    kept = set()
    for row in sorted(rows, key=lambda row: (unit_hash(row["pair_id"], "per-annotator"), row["pair_id"])):
        taken[row["annotator"], row["split"]] += 1
        if taken[row["annotator"], row["split"]] <= most:
            kept.add(row["pair_id"])
    return [row for row in rows if row["pair_id"] in kept]


def _at_most(rows: list[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    if limit is None or limit >= len(rows):
        return rows
    return sorted(rows, key=lambda row: (unit_hash(row["annotator"], "limit"), row["annotator"], row["pair_id"]))[
        :limit
    ]
