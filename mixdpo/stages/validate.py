"""Stage `validate TABLE`: a gate before the next stage. Good rows go on, bad rows go to quarantine, faults stop it."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa

from mixdpo.config import Params
from mixdpo.data.schema import PREFERENCES, REVIEWS, read_table, scores_schema, write_table
from mixdpo.errors import ConfigError, ValidationStop
from mixdpo.files import write_json, write_text
from mixdpo.layout import TABLES, Layout

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout, table: str) -> list[Path]:
    """Validate `table` (reviews, scores or preferences).

    Quarantine, page and metrics are written whatever the verdict; the validated table only where the gate passes.

    Raises:
        ConfigError: there is no such table.
        DataError: the table is not there or cannot be read.
        ValidationStop: too many bad rows, or a fault of the table as a whole; names rules, rows and remedies.
    """
    if table not in TABLES:
        raise ConfigError(f"there is no table {table!r} to validate; choose one of {', '.join(TABLES)}")
    rows = read_table(layout.unvalidated(table))
    schema = _schema(table, params)

    # Great Expectations takes seconds to import: only once there is something to check
    from mixdpo.data.expectations.gate import judge
    from mixdpo.data.expectations.page import render

    verdict = judge(table, rows, schema, params)
    quarantine, page, metrics = layout.quarantine(table), layout.validation_page(table), layout.metrics(_name(table))
    quarantined = verdict.quarantined()
    write_table(quarantine, quarantined, quarantined.schema)
    write_text(page, render(verdict))
    write_json(metrics, verdict.metrics())
    for finding in verdict.warnings:
        logger.warning("%s, %s: %s", table, finding.name, finding.fault)
    if not verdict.passed:
        raise ValidationStop(
            f"validation of {table} stopped:\n{verdict.complaint()}\n"
            f"See {page} for the whole result and {quarantine} (column `reason`) for every bad row, then run "
            f"`mixdpo validate {table}` again."
        )
    write_table(layout.validated(table), verdict.accepted(), schema)
    return [layout.validated(table), quarantine, page, metrics]


def _schema(table: str, params: Params) -> pa.Schema:
    if table == "scores":
        return scores_schema(tuple(params.rewards.dimensions))
    return {"reviews": REVIEWS, "preferences": PREFERENCES}[table]


def _name(table: str) -> str:
    return f"validation-{table}"
