"""What a study leaves: its table as text, Markdown and CSV, its picture, and a summary for `dvc exp show`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixdpo.evaluation.markdown import number, table
from mixdpo.files import write_json, write_text
from mixdpo.layout import Layout
from mixdpo.studies.study import LOG_LIKELIHOOD, NMI, Column, Results, Study


def cell(values: Sequence[float], digits: int) -> str:
    """The mean over seeds and, where there are several, `(lowest to highest)`."""
    if not values:
        return "–"
    mean = number(float(np.mean(values)), digits)
    if len(values) == 1 or not digits:
        return mean
    return f"{mean} ({number(min(values), digits)} to {number(max(values), digits)})"


def summary_table(study: Study, results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and one row a variant: its labels, then the study's columns."""
    axes = list(results.variants[0].labels)
    header = [*axes, *(column.title for column in study.columns)]
    rows = [
        [
            *(str(value) for value in variant.labels.values()),
            *(cell(results.values(column.value, **variant.labels), column.digits) for column in study.columns),
        ]
        for variant in results.variants
    ]
    return header, rows


def plain_table(study: Study, results: Results) -> str:
    """For a terminal: columns padded to one width."""
    header, rows = summary_table(study, results)
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(entry.ljust(width) for entry, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def write_results(study: Study, results: Results, layout: Layout) -> list[Path]:
    """Write table.md, rows.csv, summary.json and figure.png below studies/results/NAME."""
    # matplotlib: only where a picture is drawn
    from mixdpo.evaluation.plots import save
    from mixdpo.files import replacing

    place = layout.study(study.name)
    paths = [place / name for name in ("table.md", "rows.csv", "summary.json", "figure.png")]
    write_text(paths[0], table(*summary_table(study, results)) + "\n")
    write_text(paths[1], rows_csv(study, results))
    write_json(paths[2], summary(results))
    with replacing(paths[3]) as temporary:
        save(study.draw(results), temporary)
    return paths


def rows_csv(study: Study, results: Results) -> str:
    """One line a training, numbers as they are: what `dvc plots` draws from."""
    columns = [*study.columns, *(column for column in _TOLD if column not in study.columns)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["variant", *results.variants[0].labels, "seed", *map(_slug, columns)])
    for row in results.rows:
        numbers = [column.value(row.figures) for column in columns]
        shown = ["" if value is None else value for value in numbers]
        writer.writerow([row.variant.key, *row.variant.labels.values(), row.seed, *shown])
    return buffer.getvalue()


def summary(results: Results) -> dict[str, object]:
    """Best, median and worst variant by means over seeds: small enough for a column of `dvc exp show`."""
    told: dict[str, object] = {"trainings": len(results.rows)}
    for column in _TOLD:
        means = [results.mean(column.value, **variant.labels) for variant in results.variants]
        known = [mean for mean in means if np.isfinite(mean)]
        if known:
            told[_slug(column)] = {
                "best": max(known),
                "median": float(np.median(known)),
                "worst": min(known),
            }
    return told


_TOLD = (LOG_LIKELIHOOD, NMI)


def _slug(column: Column) -> str:
    return column.title.lower().replace(" ", "_").replace("-", "_")
