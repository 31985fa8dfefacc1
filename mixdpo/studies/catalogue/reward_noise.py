"""Reward noise: how far do specialisation and likelihood fall when the annotators' scores get worse, or fewer?"""

from __future__ import annotations

from typing import Literal

from matplotlib.figure import Figure

from mixdpo.config.base import Count, NonNegative
from mixdpo.evaluation.plots import panels, styled
from mixdpo.studies.catalogue.fixed_weights import UNIFORM
from mixdpo.studies.drawing import COLOURS, curve
from mixdpo.studies.setting import Grid, Label, Setting, Variant
from mixdpo.studies.study import (
    ACCURACY,
    LOG_LIKELIHOOD,
    NMI,
    RECOVERED,
    WORST_STYLE,
    Results,
    Study,
)


class RewardNoise(Grid):
    score_noise: tuple[NonNegative, ...]  # standard deviations
    annotators: tuple[Count, ...]
    scores: tuple[Literal["annotator", "judge"], ...]


def variants(base: Setting, grid: RewardNoise) -> list[Variant]:
    """One factor at a time, the others as in the base."""
    start = base.changed(policy={"weights": UNIFORM})
    settings: dict[tuple[str, Label], Setting] = {}
    for noise in grid.score_noise:
        settings["score noise", noise] = start.changed(labelling={"score_noise": noise})
    for count in grid.annotators:
        settings["annotators", count] = start.asking(train=count)
    for role in grid.scores:
        settings["scores of", role] = start.changed(labelling={"scores": role})
    return [Variant({"factor": factor, "value": value}, setting) for (factor, value), setting in settings.items()]


@styled
def draw(results: Results) -> Figure:
    factors = results.axis("factor")
    picture, axes = panels(2 * len(factors), 2.4, columns=len(factors))
    for place, ax in enumerate(axes):
        factor = factors[place % len(factors)]
        column = (LOG_LIKELIHOOD, NMI)[place // len(factors)]
        curve(ax, Results(results.of(factor=factor)), "value", column.value, str(factor), COLOURS[place % len(factors)])
        ax.set_title(str(factor) if place < len(factors) else "")
    for ax, title in ((axes[0], "log-likelihood (nats)"), (axes[len(factors)], "NMI")):
        ax.set_ylabel(title)
    for ax in axes[len(factors) :]:
        ax.set_ylim(-0.03, 1.03)
    return picture


STUDY = Study(
    name="reward-noise",
    question="How do noise on scores, fewer annotators and other reward models change specialisation?",
    grid=RewardNoise,
    variants=variants,
    columns=(LOG_LIKELIHOOD, ACCURACY, WORST_STYLE, NMI, RECOVERED),
    draw=draw,
)
