"""`scaling.py rows`: processor time and peak memory of the data stages and the evaluation's statistics.

Tables are generated and no model runs. A case's input is written by one process and worked on by another, so that the
peak is that of the work: what the process held at most, less what it held before (its imports).
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import scaling_tables as generated
import yaml
from apart import alone
from memory import forget_peak, peak_mb, resident_mb

from mixdpo.config import Params, parse_params
from mixdpo.layout import Layout

DEMO = Path(__file__).parents[1] / "profiles" / "demo.yaml"
Work = Callable[[], object]


def params(**changes: dict[str, Any]) -> Params:
    values = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    for section, change in changes.items():
        values[section] = change if "kind" in change else values[section] | change
    return parse_params(values)


def prepare(layout: Layout, _rows: int) -> Work:
    from mixdpo.stages import prepare as stage

    columns = {"text": "text", "label": None, "stars": "stars", "user": "user", "metadata": []}
    part = {"paths": ["raw.parquet"], "domain": "book", "columns": columns, "labels": None, "limit": None}
    chosen = params(source={"kind": "files", "sets": [part]}).model_copy(update={"inputs": "."})
    return lambda: stage.run(chosen, layout)


def validate(table: str) -> Callable[[Layout, int], Work]:
    def work(layout: Layout, _rows: int) -> Work:
        import mixdpo.data.expectations.gate  # noqa: F401 (its import is not what grows)
        from mixdpo.stages import validate as stage

        return lambda: stage.run(params(), layout, table)

    return work


def label(layout: Layout, _rows: int) -> Work:
    from mixdpo.stages import preferences as stage

    return lambda: stage.run(params(), layout)


def ready(layout: Layout, _rows: int) -> Work:
    from mixdpo.stages import preferences as stage

    names = ("prompt", "chosen", "rejected", "annotator", "style", "domain", "split")
    columns = {name: name for name in names} | {"metadata": []}
    source = {"kind": "files", "paths": ["raw.parquet"], "columns": columns, "limit": None}
    chosen = params(preferences={"source": source}).model_copy(update={"inputs": "."})
    return lambda: stage.run(chosen, layout)


def evaluate(_layout: Layout, rows: int) -> Work:
    import mixdpo.evaluation.text_metrics  # noqa: F401 (its import is not what grows)
    from mixdpo.evaluation.measure import evaluation_figures
    from mixdpo.evaluation.statistics import Bootstrap

    chosen = params()
    inputs = generated.evaluation(rows)
    bootstrap = Bootstrap(chosen.evaluation.bootstrap, 0)
    return lambda: evaluation_figures(*inputs, chosen.preferences.styles, bootstrap)


class Case(NamedTuple):
    """What `write` leaves in a project, `work` reads: both take the layout and the number of rows."""

    write: Callable[[Layout, int], object]
    work: Callable[[Layout, int], Work]


CASES = {
    "prepare": Case(generated.raw_reviews, prepare),
    "validate-reviews": Case(generated.prepared_reviews, validate("reviews")),
    "validate-preferences": Case(generated.labelled_preferences, validate("preferences")),
    "preferences-labelled": Case(generated.scores, label),
    "preferences-ready": Case(generated.raw_preferences, ready),
    "evaluate": Case(lambda _layout, _rows: None, evaluate),
}


def write(case: str, root: Path, rows: int) -> None:
    CASES[case].write(Layout(root), rows)


def measure(case: str, root: Path, rows: int) -> tuple[float, float]:
    """Processor seconds and peak megabytes of one case."""
    work = CASES[case].work(Layout(root), rows)
    before = resident_mb("cpu")
    forget_peak("cpu")
    started = time.process_time()
    work()
    return time.process_time() - started, peak_mb("cpu") - before


@click.command()
@click.option("--cases", default=",".join(CASES), show_default=True, help="With commas.")
@click.option("--rows", "sizes", default="1000,10000,100000", show_default=True, help="With commas.")
@click.option("--json", "as_json", is_flag=True)
def rows(cases: str, sizes: str, as_json: bool) -> None:
    """Time and memory of the data stages against rows; the exponent is 1 where time is linear."""
    if not as_json:
        click.echo(
            f"{'case':<22} {'rows':>9} {'seconds':>9} {'µs a row':>9} {'exponent':>9} {'peak MB':>8} {'B a row':>8}"
        )
    for case in cases.split(","):
        last: tuple[int, float] | None = None
        for count in map(int, sizes.split(",")):
            with tempfile.TemporaryDirectory() as root:
                alone(write, case, Path(root), count)
                seconds, peak = alone(measure, case, Path(root), count)
            exponent = last and math.log(seconds / last[1]) / math.log(count / last[0])
            last = count, seconds
            row = {"benchmark": "scaling", "case": case, "rows": count, "cpu_seconds": seconds, "peak_mb": peak}
            click.echo(json.dumps(row | {"exponent": exponent}) if as_json else _line(row, exponent))


def _line(row: dict[str, Any], exponent: float | None) -> str:
    shown = "" if exponent is None else f"{exponent:.2f}"
    return (
        f"{row['case']:<22} {row['rows']:>9,} {row['cpu_seconds']:>9.2f} "
        f"{1e6 * row['cpu_seconds'] / row['rows']:>9.0f} {shown:>9} {row['peak_mb']:>8.0f} "
        f"{1e6 * row['peak_mb'] / row['rows']:>8.0f}"
    )
