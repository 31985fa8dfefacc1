"""Draw every figure that this evaluation has the data for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixdpo.errors import DataError
from mixdpo.evaluation import plots
from mixdpo.evaluation.content import Picture
from mixdpo.evaluation.markdown import in_order
from mixdpo.evaluation.statistics import Floats

Curves = dict[str, dict[str, Floats]]


def read_curve(path: Path) -> dict[str, Floats]:
    """A training curve (CSV with a column `step`): column → values, NaN where a step did not log it."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; run the stage that writes it first (`dvc repro` runs all)")
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    names = list(rows[0]) if rows else []
    return {name: np.array([float(row[name]) if row[name] else np.nan for row in rows]) for name in names}


def draw_figures(
    metrics: Mapping[str, Any], responsibilities: pa.Table, curves: Curves, directory: Path
) -> list[Picture]:
    """Write the PNGs into `directory`; returns those on specialisation and training, which depend on the run."""
    plots.save(plots.reward_bars(metrics), directory / "rewards.png")
    plots.save(plots.frontier(metrics), directory / "frontier.png")
    plots.save(plots.few_shot_curves(metrics), directory / "few-shot.png")
    if metrics["styles"]:
        plots.save(plots.style_bars(metrics), directory / "styles.png")
    pictures = []
    mixtures = {name: p["specialisation"] for name, p in in_order(metrics).items() if p["specialisation"]}
    if matrices := {name: found["annotators"]["matrix"] for name, found in mixtures.items() if found["annotators"]}:
        plots.save(plots.responsibilities_by_style(matrices), directory / "responsibilities.png")
        caption = "Mean responsibility of each expert for the annotators of each style."
        pictures.append(Picture("responsibilities.png", caption))
        people = {name: _annotators(responsibilities, name) for name in matrices}
        plots.save(plots.annotator_map(people, np.random.default_rng(0)), directory / "annotators.png")
        caption = "Every held-out annotator between the experts that explain them; a little noise keeps points apart."
        pictures.append(Picture("annotators.png", caption))
    if mixtures:
        routes = {name: found["routing"]["by_domain"] for name, found in mixtures.items()}
        plots.save(plots.routing_bars(routes), directory / "routing.png")
        pictures.append(Picture("routing.png", "Where the mixing weights send the prompts of each domain."))
    if curves:
        plots.save(plots.training_curves(curves), directory / "training.png")
    return pictures


def _annotators(table: pa.Table, policy: str) -> tuple[Floats, list[str]]:
    """(annotators, K) mean responsibility of each annotator of known style, and the styles."""
    rows: dict[tuple[str, str], dict[int, list[float]]] = {}
    columns = table.select(["policy", "style", "annotator", "expert", "responsibility"]).to_pydict()
    for name, style, annotator, expert, q in zip(*columns.values(), strict=True):
        if name == policy and style is not None:
            rows.setdefault((annotator, style), {}).setdefault(expert, []).append(q)
    people = sorted(rows)
    means = [[float(np.mean(rows[person][expert])) for expert in sorted(rows[person])] for person in people]
    return np.array(means), [style for _, style in people]
