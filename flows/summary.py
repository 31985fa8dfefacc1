"""What a person reads at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from flows.tasks import StageResult
from mixdpo.registry import Version


def summarise(
    stages: Sequence[StageResult], seconds: float, metrics: str, report: Path, version: Version | None
) -> str:
    """The whole summary as plain text.

    Args:
        stages: in the graph's order.
        seconds: of the whole run.
        metrics: the Markdown table of the policies.
        version: what was registered, None where nothing was to be.
    """
    parts = [stage_table(stages, seconds), aligned(metrics), f"Report      {report}"]
    if version is not None:
        parts[-1] += "\n" + registration_text(version)
    return "\n\n".join(parts)


def stage_table(stages: Sequence[StageResult], seconds: float) -> str:
    width = max(len(stage.name) for stage in stages)
    lines = [
        f"{stage.name:{width}}  {stage.outcome:9}" + (f"  {stage.seconds:6.1f} s" if stage.seconds else "")
        for stage in stages
    ]
    told = f"{len(stages)} stages: {outcome_counts(stages)}, in {seconds:.0f} s"
    return "\n".join([*(line.rstrip() for line in lines), told])


def outcome_counts(stages: Sequence[StageResult]) -> str:
    """As in `12 ran, 3 unchanged`."""
    counts = Counter(stage.outcome for stage in stages)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("ran", "restored", "unchanged") if counts[outcome])


def aligned(table: str) -> str:
    """A Markdown table with its columns padded to one width, for a terminal."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    rows[1] = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def registration_text(version: Version) -> str:
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    state = "" if version.created else ", the same as before: nothing new was published"
    reference = f"{version.name}@{version.aliases[0]}" if version.aliases else version.reference
    return (
        f"Registered  {version.reference}{aliases}{state}\n"
        f'Use it      mixdpo generate {reference} "This film"\n'
        f"            mixdpo pull {reference}\n"
        f'            MixturePolicy.from_pretrained("{reference}")'
    )
