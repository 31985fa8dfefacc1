"""Run expectations with Great Expectations and bring back findings.

Everything is checked with summary results, which are cheap; the positions of failing rows, which are not, are asked for
in a second run of the expectations that failed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mixdpo.data.expectations.library import gx
from mixdpo.data.expectations.verdict import Finding, Phase

POSITIONS = {"result_format": "COMPLETE", "exclude_unexpected_values": True, "return_unexpected_index_query": False}


def batch_of(frame: pd.DataFrame) -> Any:
    """`frame` as a batch in a context of its own; worth keeping, since the library hashes every value of it."""
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": frame})


def run(batch: Any, expectations: Sequence[Any]) -> list[Finding]:
    """Check a batch whose index holds the positions of its rows; one finding an expectation, in order."""
    if not expectations:
        return []
    results = _results(batch, expectations, "SUMMARY")
    failed = [position for position, result in enumerate(results) if not result.success]
    if failed:
        details = _results(batch, [expectations[position] for position in failed], POSITIONS)
        for position, detail in zip(failed, details, strict=True):
            results[position] = detail
    return [
        finding_of(expectation, result.success, _rows(result.result), _observed(result.result))
        for expectation, result in zip(expectations, results, strict=True)
    ]


def finding_of(expectation: Any, success: bool | None, rows: tuple[int, ...], observed: Any) -> Finding:
    meta = expectation.meta
    return Finding(
        name=meta["name"],
        columns=columns_of(expectation),
        phase=Phase(meta["phase"]),
        severity=str(expectation.severity.value),
        expects=expectation.description,
        fault=meta["fault"],
        remedy=meta["remedy"],
        success=success,
        rows=rows,
        observed=observed,
    )


def columns_of(expectation: Any) -> tuple[str, ...]:
    """The columns that an expectation reads; none for one on the table."""
    names = (getattr(expectation, key, None) for key in ("column", "column_A", "column_B"))
    return tuple(name for name in names if name is not None)


def _results(batch: Any, expectations: Sequence[Any], result_format: Any) -> list[Any]:
    """Results in the order of `expectations` (the library sorts them by column)."""
    suite = gx.ExpectationSuite(name="phase", expectations=list(expectations))
    found = {
        result.expectation_config.meta["name"]: result
        for result in batch.validate(suite, result_format=result_format).results
    }
    assert len(found) == len(expectations), "two rules of one table have the same name"
    for name, result in found.items():
        # an expectation that could not be computed is our mistake, never the data's
        assert not _raised(result), f"{name} raised {result.exception_info}"
    return [found[expectation.meta["name"]] for expectation in expectations]


def _raised(result: Any) -> bool:
    info = result.exception_info
    return bool(info and info.get("raised_exception", True))


def _rows(result: dict[str, Any]) -> tuple[int, ...]:
    return tuple(sorted(int(position) for position in result.get("unexpected_index_list") or ()))


def _observed(result: dict[str, Any]) -> Any:
    """What was seen, as JSON: of a set, only what is missing or unexpected; nothing for rules on rows."""
    if mismatched := (result.get("details") or {}).get("mismatched"):
        return {key: sorted(values) for key, values in mismatched.items()}
    if missing := result.get("partial_missing_list"):
        return {"missing": sorted(missing)}
    value = result.get("observed_value")
    if isinstance(value, list):  # the names of all columns say nothing that the expectation does not
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
