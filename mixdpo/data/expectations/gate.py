"""Decide on a table: which rows are accepted, which go to quarantine, whether the gate stops."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pandas as pd
import pyarrow as pa

from mixdpo.config import Params
from mixdpo.data.expectations.runner import batch_of, columns_of, finding_of, run
from mixdpo.data.expectations.suites import suite_of
from mixdpo.data.expectations.verdict import Finding, Phase, Verdict


def judge(name: str, table: pa.Table, schema: pa.Schema, params: Params) -> Verdict:
    """Check `table` (reviews, scores or preferences) against its suite.

    No row is lost: the accepted and the quarantined rows together are the table. Accepted rows are accepted again by a
    second look, since every phase sees only rows that passed the phases before.
    """
    expectations = suite_of(name, table.column_names, schema, params).expectations
    note = _nothing_to_check(name, table, params)
    if note is not None:
        expectations = [e for e in expectations if e.meta["phase"] == Phase.COLUMNS]

    frame = table.to_pandas(ignore_metadata=True)  # the index is the position of each row
    batch = batch_of(frame)
    unusable: dict[str, str] = {column: "is missing" for column in schema.names if column not in table.column_names}
    findings: list[Finding] = []
    reasons: dict[int, list[str]] = defaultdict(list)
    for phase in Phase:
        if len(frame) + len(reasons) > table.num_rows:  # the phase before found bad rows
            frame = frame[~frame.index.isin(list(reasons))]
            batch = batch_of(frame)
        checkable = []
        for expectation in (e for e in expectations if e.meta["phase"] == phase):
            if obstacle := _obstacle(expectation, phase, frame, bool(reasons), unusable):
                findings.append(finding_of(expectation, None, (), obstacle))
            else:
                checkable.append(expectation)
        found = run(batch, checkable)
        findings += found
        for finding in found:
            if finding.blocks and phase is Phase.COLUMNS:
                unusable |= dict.fromkeys(finding.columns, "has the wrong type")
            if finding.rejects:
                for row in finding.rows:
                    reasons[row].append(f"{finding.name}: {finding.fault}")
    order = {expectation.meta["name"]: position for position, expectation in enumerate(expectations)}
    return Verdict(
        name=name,
        table=table,
        findings=tuple(sorted(findings, key=lambda finding: order[finding.name])),
        reasons={row: tuple(faults) for row, faults in reasons.items()},
        max_bad_fraction=params.validation.max_bad_fraction,
        note=note,
    )


def _nothing_to_check(name: str, table: pa.Table, params: Params) -> str | None:
    if name == "scores" and table.num_rows == 0 and params.preferences.source.kind == "files":
        return "skipped: preferences come from files"
    return None


def _obstacle(
    expectation: Any, phase: Phase, frame: pd.DataFrame, rows_dropped: bool, unusable: dict[str, str]
) -> str | None:
    """Why an expectation cannot be checked, if it cannot."""
    if phase is Phase.TABLE and frame.empty and rows_dropped:
        return "all rows are in quarantine"
    for column in columns_of(expectation):
        if column in unusable:
            return f"the column {column} {unusable[column]}"
        if phase is Phase.TABLE and frame[column].isna().all():
            return f"no row has a value in {column}"
    return None
