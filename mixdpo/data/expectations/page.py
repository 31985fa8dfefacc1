"""The page that people read about a validation: one static file, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from typing import Any

import jinja2

from mixdpo.data.expectations.verdict import Finding, Phase, Verdict, counted, in_words

SAMPLES = 20  # quarantined rows shown
SAMPLES_PER_REASON = 3  # so that one frequent fault does not hide the others
EXCERPT = 200  # characters of a text

PHASES = {
    Phase.COLUMNS: "Columns",
    Phase.ROWS: "Each row",
    Phase.PEERS: "Rows against each other",
    Phase.GROUPS: "Annotators",
    Phase.TABLE: "The table as a whole",
}
HIDDEN = {"chosen_finished", "rejected_finished", "finished", "user_id", "style"}  # no rule on their values


def render(verdict: Verdict) -> str:
    """The page as HTML; all texts of the data are escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files(__package__) / "page.html").read_text(encoding="utf-8"))
    return (
        template.render(
            verdict=verdict,
            digest=verdict.metrics()["digest"],
            rows=verdict.table.num_rows,
            quarantined=len(verdict.reasons),
            groups=[
                _group(title, [f for f in verdict.findings if f.phase is phase]) for phase, title in PHASES.items()
            ],
            stops=[(finding, _found(finding)) for finding in verdict.stops()],
            warnings=[(finding, _found(finding)) for finding in verdict.warnings],
            samples=_samples(verdict),
        )
        + "\n"
    )


def _group(title: str, findings: list[Finding]) -> dict[str, Any]:
    return {
        "title": title,
        "passed": sum(finding.success is True for finding in findings),
        "findings": [(finding, _state(finding), _found(finding)) for finding in findings],
    }


def _state(finding: Finding) -> str:
    if finding.success is None:
        return "unchecked"
    if finding.success:
        return "passed"
    if finding.severity == "warning":
        return "warning"
    return "quarantine" if finding.phase.quarantines else "failed"


def _found(finding: Finding) -> str:
    """What was seen, where that says more than whether the expectation was met."""
    if finding.rows:
        return counted(len(finding.rows), "row")
    if finding.success and not isinstance(finding.observed, (int, float)):
        return ""
    return in_words(finding.observed)


def _samples(verdict: Verdict) -> list[dict[str, Any]]:
    """A few quarantined rows, some of each reason."""
    seen: Counter[tuple[str, ...]] = Counter()
    chosen: list[int] = []
    for row, faults in sorted(verdict.reasons.items()):
        if len(chosen) < SAMPLES and seen[faults] < SAMPLES_PER_REASON:
            seen[faults] += 1
            chosen.append(row)
    columns = [name for name in verdict.table.column_names if name not in HIDDEN]
    return [
        {
            "row": row,
            "faults": verdict.reasons[row],
            "values": [(name, _excerpt(verdict.table[name][row].as_py())) for name in columns],
        }
        for row in chosen
    ]


def _excerpt(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}… ({len(text):,} characters)"
