"""Rules that several tables share, and how an expectation carries its words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from mixdpo.config import Params
from mixdpo.data.expectations import custom
from mixdpo.data.expectations.library import gxe
from mixdpo.data.expectations.verdict import Phase
from mixdpo.data.schema import SPLITS

MAX_CHARACTERS = 100_000  # a longer text is a parsing fault, such as a quote never closed in a CSV file
Expectations = Iterator[Any]


def rule(
    expectation: Any,
    name: str,
    phase: Phase,
    *,
    expects: str,
    fault: str,
    remedy: str,
    severity: str = "critical",
    **arguments: Any,
) -> Any:
    """One expectation, carrying its words with it into the result."""
    meta = {"name": name, "phase": phase.value, "fault": fault, "remedy": remedy}
    return expectation(severity=severity, description=expects, meta=meta, **arguments)


def columns(present: Sequence[str], schema: pa.Schema) -> Expectations:
    yield rule(
        gxe.ExpectTableColumnsToMatchSet,
        "columns_present",
        Phase.COLUMNS,
        column_set=schema.names,
        exact_match=False,
        expects=f"The table has the columns {', '.join(schema.names)}",
        fault="columns are missing",
        remedy="run the stage that writes this table again; if it was written by hand, add the columns",
    )
    yield rule(
        gxe.ExpectTableColumnsToMatchSet,
        "columns_known",
        Phase.COLUMNS,
        column_set=[name for name in schema.names if name in present],  # what is missing is the other rule's
        severity="warning",
        expects="The table has no other columns",
        fault="columns that no stage knows are left out of the validated table",
        remedy="put what should be kept into the metadata column",
    )
    for field in schema:
        kind = _kind(field.type)
        yield rule(
            custom.ExpectColumnKindToBe,
            f"{field.name}_is_{kind}",
            Phase.COLUMNS,
            column=field.name,
            kind=kind,
            expects=f"{field.name} holds {kind} values",
            fault=f"{field.name} does not hold {kind} values",
            remedy=f"write the column {field.name} as {field.type}",
        )


def _kind(type_: pa.DataType) -> str:
    if pa.types.is_string(type_):
        return "text"
    return "boolean" if pa.types.is_boolean(type_) else "number"


def filled(*columns: str, fault: str | None = None) -> Expectations:
    for column in columns:
        yield rule(
            gxe.ExpectColumnValuesToNotBeNull,
            f"{column}_present",
            Phase.ROWS,
            column=column,
            expects=f"{column} is never empty",
            fault=fault or f"{column} is missing",
            remedy=f"fill {column} in the source, or drop these rows there",
        )


def texts(*columns: str) -> Expectations:
    for column in columns:
        yield from filled(column)
        yield rule(
            gxe.ExpectColumnValuesToMatchRegex,
            f"{column}_not_blank",
            Phase.ROWS,
            column=column,
            regex=r"\S",
            expects=f"{column} is more than space",
            fault=f"{column} is blank",
            remedy="drop blank texts in the source",
        )
        yield rule(
            gxe.ExpectColumnValueLengthsToBeBetween,
            f"{column}_length",
            Phase.ROWS,
            column=column,
            max_value=MAX_CHARACTERS,
            expects=f"{column} has at most {MAX_CHARACTERS:,} characters",
            fault=f"{column} is longer than {MAX_CHARACTERS:,} characters",
            remedy="check the file for a quote that is never closed, or cut the text",
        )


def identified(column: str, by: str) -> Expectations:
    yield rule(
        custom.ExpectIdsToMatchTexts,
        f"{column}_matches_{by}",
        Phase.ROWS,
        column_A=column,
        column_B=by,
        expects=f"{column} is the sha256 of {by}",
        fault=f"{column} is not the sha256 of {by}: one of them was changed alone",
        remedy="run the stage that writes this table again; ids are made from texts, never edited",
    )


def unique(column: str) -> Expectations:
    yield rule(
        gxe.ExpectColumnValuesToBeUnique,
        f"{column}_unique",
        Phase.PEERS,
        column=column,
        expects=f"{column} occurs once",
        fault=f"{column} occurs more than once",
        remedy="remove the duplicates; all copies are put aside, since which one is right cannot be known",
    )


def json_objects(column: str) -> Expectations:
    yield rule(
        custom.ExpectColumnValuesToBeJsonObjects,
        f"{column}_is_object",
        Phase.ROWS,
        column=column,
        expects=f"{column} is a JSON object",
        fault=f"{column} is not a JSON object",
        remedy='write it as {"name": value, …}, or {} where there is none',
    )


def splits(column: str, noun: str, fold: bool = False) -> Expectations:
    likeness = ", not even with other case, space or punctuation" * fold
    yield rule(
        gxe.ExpectColumnValuesToBeInSet,
        "split_in_set",
        Phase.ROWS,
        column="split",
        value_set=list(SPLITS),
        expects=f"Each split is one of {', '.join(SPLITS)}",
        fault=f"split is none of {', '.join(SPLITS)}",
        remedy="rename the splits, or leave them to be made by hash",
    )
    yield rule(
        custom.ExpectValuesToKeepToOneGroup,
        f"{column}_in_one_split",
        Phase.PEERS,
        column_A=column,
        column_B="split",
        fold=fold,
        expects=f"No {noun} is in two splits{likeness}",
        fault=f"the {noun} is in two splits, so what is tested was trained on",
        remedy=f"keep each {noun} in one split; splits made by hash do",
    )


def enough_rows(least: int, what: str, remedy: str) -> Any:
    return rule(
        gxe.ExpectTableRowCountToBeBetween,
        "enough_rows",
        Phase.TABLE,
        min_value=least,
        expects=f"At least {least:,} {what} are left" if least > 1 else f"There are {what}",
        fault=f"fewer than {least:,} {what} are left" if least > 1 else f"no {what} are left",
        remedy=remedy,
    )


def all_splits(params: Params) -> Expectations:
    held_out = [name for name in ("validation", "test") if getattr(params.splits, name) > 0]
    needed: Sequence[str] = ["train", *held_out]
    yield rule(
        gxe.ExpectColumnDistinctValuesToContainSet,
        "splits_not_empty",
        Phase.TABLE,
        column="split",
        value_set=needed,
        expects=f"No split is empty: {', '.join(needed)}",
        fault="a split is empty",
        remedy="add data, or change splits.validation and splits.test in params.yaml",
    )
