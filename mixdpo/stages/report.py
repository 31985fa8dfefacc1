"""Stage `report`: figures, reports/index.html and reports/report.md from what the other stages measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mixdpo.config import Params
from mixdpo.data.schema import read_table
from mixdpo.errors import DataError
from mixdpo.evaluation import content, run_content
from mixdpo.evaluation.content import Picture, Section
from mixdpo.evaluation.examples import examples
from mixdpo.evaluation.figures import draw_figures, read_curve
from mixdpo.evaluation.headline import headline
from mixdpo.evaluation.markdown import in_order
from mixdpo.evaluation.report import Report, render_html, render_markdown
from mixdpo.evaluation.tables import RESPONSIBILITIES
from mixdpo.files import read_json, replacing, write_text
from mixdpo.layout import TABLES, Layout


def run(params: Params, layout: Layout) -> list[Path]:
    """Write the report.

    Raises:
        DataError: a stage before it has not run.
    """
    metrics = read_json(layout.metrics("evaluation"))
    if metrics.get("schema") != 1:
        raise DataError(
            f"{layout.metrics('evaluation')} has schema {metrics.get('schema')}, expected 1; "
            "run `mixdpo evaluate` again"
        )
    trained = [name for name in in_order(metrics) if name in params.policies]
    curves = {name: read_curve(path) for name in trained if (path := layout.training_curve(name)).is_file()}
    rows = read_table(layout.evaluation / "responsibilities.parquet", RESPONSIBILITIES)
    shown = examples(
        read_table(layout.evaluation / "samples.parquet"), metrics["dimensions"], params.evaluation.examples
    )
    figures, page, text = layout.reports / "figures", layout.reports / "index.html", layout.reports / "report.md"
    with replacing(figures) as directory:
        directory.mkdir(parents=True)
        pictures = draw_figures(metrics, rows, curves, directory)
        report = Report(
            params.profile, metrics["seed"], headline(metrics), _sections(layout, metrics, trained, pictures), shown
        )
        written, marked = render_html(report, directory), render_markdown(report)
    write_text(page, written)
    write_text(text, marked)
    return [page, text, figures]


def _sections(layout: Layout, metrics: dict[str, Any], trained: list[str], pictures: list[Picture]) -> list[Section]:
    """Every section in the order in which a reader asks: who is served, why, at what price, from which run."""
    summaries = {name: read_json(layout.metrics(f"train-{name}")) for name in trained}
    verdicts = {table: read_json(layout.metrics(f"validation-{table}")) for table in TABLES}
    pages = {table: os.path.relpath(layout.validation_page(table), layout.reports) for table in TABLES}
    sections = [
        content.served(metrics),
        content.preferences(metrics),
        content.rewards(metrics),
        content.specialisation(metrics, pictures),
        content.cost(metrics),
        content.truth(metrics),
        run_content.training(summaries),
        run_content.reward_models(read_json(layout.metrics("rewards")), metrics["dimensions"]),
        run_content.validation(verdicts, pages),
    ]
    return [section for section in sections if section is not None]
