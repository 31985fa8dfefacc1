"""What a gate found out, as data: findings, the verdict on a table, the metrics and the message made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from mixdpo.files import digest

SCHEMA = 1
EXAMPLES = 5
ID_COLUMNS = {"reviews": "review_id", "scores": "candidate_id", "preferences": "pair_id"}


class Phase(StrEnum):
    """When a rule runs; each phase sees the rows that passed the phases before (see `suites`)."""

    COLUMNS = "columns"
    ROWS = "rows"
    PEERS = "peers"
    GROUPS = "groups"
    TABLE = "table"

    @property
    def quarantines(self) -> bool:
        return self in (Phase.ROWS, Phase.PEERS, Phase.GROUPS)


@dataclass(frozen=True)
class Finding:
    """One expectation's result. `success` is None where it could not be checked: `observed` says why."""

    name: str
    columns: tuple[str, ...]
    phase: Phase
    severity: str  # critical or warning
    expects: str  # in plain words
    fault: str  # what is wrong with a row or table that fails
    remedy: str
    success: bool | None
    rows: tuple[int, ...]  # positions of failing rows in the table that was read
    observed: Any

    @property
    def blocks(self) -> bool:
        """Whether this failure alone stops the gate, however few the rows."""
        return self.success is False and self.severity == "critical" and not self.phase.quarantines

    @property
    def rejects(self) -> bool:
        """Whether the failing rows go to quarantine."""
        return self.success is False and self.severity == "critical" and self.phase.quarantines


@dataclass(frozen=True)
class Verdict:
    """The gate's decision on one table."""

    name: str
    table: pa.Table
    findings: tuple[Finding, ...]
    reasons: Mapping[int, tuple[str, ...]]  # position of a bad row → every rule it fails
    max_bad_fraction: float
    note: str | None

    @property
    def bad_fraction(self) -> float:
        return float(len(self.reasons) / max(self.table.num_rows, 1))

    @property
    def too_many_bad(self) -> bool:
        return self.bad_fraction > self.max_bad_fraction

    @property
    def passed(self) -> bool:
        return not self.too_many_bad and not any(finding.blocks for finding in self.findings)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.success is False and finding.severity == "warning")

    def accepted(self) -> pa.Table:
        keep = [position not in self.reasons for position in range(self.table.num_rows)]
        return self.table.filter(pa.array(keep, pa.bool_()))

    def quarantined(self) -> pa.Table:
        """The bad rows as they were read, and one column more: `reason`."""
        positions = sorted(self.reasons)
        rows = self.table.take(pa.array(positions, pa.int64()))
        reasons = ["; ".join(self.reasons[position]) for position in positions]
        return rows.append_column("reason", pa.array(reasons, pa.string()))

    def examples(self, finding: Finding) -> list[dict[str, Any]]:
        """The first few failing rows: position in the table that was read, and id."""
        column = ID_COLUMNS[self.name]
        identified = column in self.table.column_names
        return [
            {"row": row, "id": self.table[column][row].as_py() if identified else None}
            for row in finding.rows[:EXAMPLES]
        ]

    def metrics(self) -> dict[str, Any]:
        """What metrics/validation-TABLE.json holds: the same for the same table and params, with a digest of itself."""
        values = {
            "schema": SCHEMA,
            "table": self.name,
            "rows": self.table.num_rows,
            "accepted": self.table.num_rows - len(self.reasons),
            "quarantined": len(self.reasons),
            "max_bad_fraction": self.max_bad_fraction,
            "passed": self.passed,
            "note": self.note,
            "expectations": [
                {
                    "name": finding.name,
                    "columns": list(finding.columns),
                    "phase": finding.phase.value,
                    "severity": finding.severity,
                    "expects": finding.expects,
                    "success": finding.success,
                    "unexpected_count": len(finding.rows),
                    "observed": finding.observed,
                    "examples": self.examples(finding),
                }
                for finding in self.findings
            ],
        }
        return {**values, "digest": digest(values)}

    def stops(self) -> list[Finding]:
        """The findings that made the gate stop: structural faults first, then what filled the quarantine."""
        blocking = [finding for finding in self.findings if finding.blocks]
        rejecting = [finding for finding in self.findings if finding.rejects and self.too_many_bad]
        return blocking + sorted(rejecting, key=lambda finding: -len(finding.rows))

    def complaint(self) -> str:
        """Which rules failed, how often, where, and what to do about each: the body of a ValidationStop."""
        lines = []
        if self.too_many_bad:
            lines.append(
                f"  {len(self.reasons)} of {self.table.num_rows} rows ({self.bad_fraction:.1%}) are bad; "
                f"validation.max_bad_fraction allows {self.max_bad_fraction:.1%}: correct the source, or raise it"
            )
        lines += [f"  {f.name}: {f.fault}{self._where(f)}\n    → {f.remedy}" for f in self.stops()]
        return "\n".join(lines)

    def _where(self, finding: Finding) -> str:
        if finding.rows:
            places = ", ".join(_place(example) for example in self.examples(finding))
            return f" ({counted(len(finding.rows), 'row')}: {places}{', …' * (len(finding.rows) > EXAMPLES)})"
        return f" (found: {in_words(finding.observed)})"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def in_words(observed: Any) -> str:
    """An observed value as people read it."""
    if observed is None:
        return "none"
    if isinstance(observed, dict):
        return "; ".join(f"{key} {in_words(value)}" for key, value in sorted(observed.items()))
    if isinstance(observed, list):
        return ", ".join(map(in_words, observed)) or "none"
    if isinstance(observed, float):
        return f"{observed:.4g}"
    return f"{observed:,}" if isinstance(observed, int) else str(observed)


def _place(example: Mapping[str, Any]) -> str:
    identifier = str(example["id"])
    if len(identifier) > 16:
        identifier = identifier[:12] + "…"
    return f"row {example['row']}" if example["id"] is None else f"row {example['row']} ({identifier})"
