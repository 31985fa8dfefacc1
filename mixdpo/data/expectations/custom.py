"""Expectations of our own, for rules that Great Expectations has none of.

Each is a pair of classes, as the library wants it: a metric that answers the question for a whole column at once, and
an expectation that names the metric. Rows with a missing value are left to the not-null expectations.
"""

# ruff: noqa: N805 (the library calls metric functions with the class, not with an instance)

from __future__ import annotations

import json
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mixdpo.data.expectations.library import (
    ColumnAggregateExpectation,
    ColumnAggregateMetricProvider,
    ColumnMapExpectation,
    ColumnMapMetricProvider,
    ColumnPairMapExpectation,
    ColumnPairMapMetricProvider,
    PandasExecutionEngine,
    column_aggregate_value,
    column_condition_partial,
    column_pair_condition_partial,
)
from mixdpo.data.schema import text_id

PAIR_DOMAIN = ("batch_id", "table", "column_A", "column_B", "row_condition", "condition_parser", "ignore_row_if")


class PairExpectation(ColumnPairMapExpectation):  # type: ignore[misc]
    """Base of the rules on two columns of one row."""

    ignore_row_if: str = "either_value_is_missing"
    domain_keys: ClassVar[tuple[str, ...]] = PAIR_DOMAIN


class ColumnKind(ColumnAggregateMetricProvider):  # type: ignore[misc]
    metric_name = "column.kind"

    @column_aggregate_value(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series, **_: Any) -> str:
        kind = "empty" if column.isna().all() else pd.api.types.infer_dtype(column, skipna=True)
        return {"string": "text", "floating": "number", "integer": "number"}.get(kind, kind)


class ExpectColumnKindToBe(ColumnAggregateExpectation):  # type: ignore[misc]
    """The column holds `kind` (text, number, boolean) or nothing at all, whatever the width or storage of its type."""

    kind: str
    metric_dependencies: ClassVar[tuple[str, ...]] = ("column.kind",)
    success_keys: ClassVar[tuple[str, ...]] = ("kind",)

    def _validate(self, metrics: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        found = metrics["column.kind"]
        return {"success": found in (self.kind, "empty"), "result": {"observed_value": found}}


class ValuesAreJsonObjects(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.json_object"

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series, **_: Any) -> pd.Series:
        # a column of few distinct values (`{}` everywhere) is the common case
        return column.map({value: _is_json_object(value) for value in column.unique()}).astype(bool)


class ExpectColumnValuesToBeJsonObjects(ColumnMapExpectation):  # type: ignore[misc]
    """Each value is the text of a JSON object; arrays, bare numbers and broken JSON are not."""

    map_metric: ClassVar[str] = "column_values.json_object"


class GroupsAreLargeEnough(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.group_size"
    condition_value_keys = ("min_size",)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series, min_size: int, **_: Any) -> pd.Series:
        return column.map(column.value_counts()) >= min_size


class ExpectGroupsToHaveSize(ColumnMapExpectation):  # type: ignore[misc]
    """Each value of the column occurs in at least `min_size` rows."""

    min_size: int
    map_metric: ClassVar[str] = "column_values.group_size"
    success_keys: ClassVar[tuple[str, ...]] = ("min_size", "mostly")


class IdsMatchTexts(ColumnPairMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_pair_values.id_of_text"
    condition_domain_keys = PAIR_DOMAIN

    @column_pair_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        return column_A == column_B.map({text: text_id(text) for text in column_B.unique()})


class ExpectIdsToMatchTexts(PairExpectation):
    """column_A is the sha256 (hex) of the text in column_B."""

    map_metric: ClassVar[str] = "column_pair_values.id_of_text"


class ValuesDiffer(ColumnPairMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_pair_values.differ"
    condition_domain_keys = PAIR_DOMAIN

    @column_pair_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        return column_A.str.strip() != column_B.str.strip()


class ExpectColumnPairValuesToDiffer(PairExpectation):
    """column_A and column_B are two texts, not one with other space around it."""

    map_metric: ClassVar[str] = "column_pair_values.differ"


class ValuesKeepToOneGroup(ColumnPairMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_pair_values.one_group"
    condition_domain_keys = PAIR_DOMAIN
    condition_value_keys = ("fold",)

    @column_pair_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, fold: bool, **_: Any) -> pd.Series:
        values = folded(column_A) if fold else column_A
        pairs = pd.DataFrame({"value": values, "group": column_B}).drop_duplicates()
        shared = pairs["value"][pairs["value"].duplicated()]
        return ~values.isin(shared)


class ExpectValuesToKeepToOneGroup(PairExpectation):
    """No value of column_A occurs with two values of column_B (a text in two splits, say).

    With `fold`, values that differ in case, space or punctuation alone count as one.
    """

    fold: bool
    map_metric: ClassVar[str] = "column_pair_values.one_group"
    success_keys: ClassVar[tuple[str, ...]] = ("fold", "mostly")


def folded(texts: pd.Series) -> pd.Series:
    """Lower-cased letters and digits alone, of any script; a text that has none stays as it is."""
    lower = pc.utf8_lower(pa.array(texts, pa.string()))
    letters = pc.replace_substring_regex(lower, r"[^\p{L}\p{M}\p{N}]+", "")  # RE2: twice as fast as Python's re
    return pd.Series(letters.to_pylist(), index=texts.index).where(lambda folds: folds != "", texts)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
