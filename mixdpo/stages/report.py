"""Stage `report`: figures, reports/index.html and reports/report.md from what the other stages measured."""

from __future__ import annotations

import os
from pathlib import Path

from mixdpo.config import Params
from mixdpo.data.schema import read_table
from mixdpo.errors import DataError
from mixdpo.evaluation import content, run_content
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
    trained = [name for name, policy in in_order(metrics).items() if policy["preference"] is not None]
    summaries = {name: read_json(layout.metrics(f"train-{name}")) for name in trained}
    verdicts = {table: read_json(layout.metrics(f"validation-{table}")) for table in TABLES}
    models = read_json(layout.metrics("rewards"))
    curves = {name: read_curve(layout.training_curve(name)) for name in trained}
    rows = read_table(layout.evaluation / "responsibilities.parquet", RESPONSIBILITIES)
    samples = read_table(layout.evaluation / "samples.parquet")
    pages = {table: os.path.relpath(layout.validation_page(table), layout.reports) for table in TABLES}
    figures, page, text = layout.reports / "figures", layout.reports / "index.html", layout.reports / "report.md"
    with replacing(figures) as directory:
        directory.mkdir(parents=True)
        pictures = draw_figures(metrics, rows, curves, directory)
        # in the order in which a reader asks: who is served, why, at what price, from which run
        sections = [
            content.served(metrics),
            content.preferences(metrics),
            content.rewards(metrics),
            content.specialisation(metrics, pictures),
            content.cost(metrics),
            *([content.truth(metrics)] if metrics["truth"] else []),
            run_content.training(summaries),
            run_content.reward_models(models, metrics["dimensions"]),
            run_content.validation(verdicts, pages),
        ]
        shown = examples(samples, metrics["dimensions"], params.evaluation.examples)
        report = Report(params.profile, metrics["seed"], headline(metrics), sections, shown)
        written, marked = render_html(report, directory), render_markdown(report)
    write_text(page, written)
    write_text(text, marked)
    return [page, text, figures]
