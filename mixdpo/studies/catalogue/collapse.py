"""Collapse stress: for which beta, entropy reward and E-step temperature do the experts part?"""

from __future__ import annotations

import itertools
from typing import Any

from matplotlib.figure import Figure

from mixdpo.config.base import NonNegative, Positive
from mixdpo.evaluation.plots import panels, styled
from mixdpo.studies.drawing import heat
from mixdpo.studies.setting import Grid, Setting, Variant
from mixdpo.studies.study import (
    ENTROPY_Q,
    ENTROPY_W,
    LOG_LIKELIHOOD,
    NMI,
    VARIANCE_Q,
    Column,
    Results,
    Study,
    figure,
)

EFFECTIVE = Column("effective experts", figure("effective_experts"), 2)


class Collapse(Grid):
    beta: tuple[Positive, ...]
    entropy: tuple[NonNegative, ...]  # lambda_ent of the gate
    temperature: tuple[Positive, ...]  # of the E-step at the start, falling to 1 over `steps`
    steps: int
    gate: dict[str, Any]


def variants(base: Setting, grid: Collapse) -> list[Variant]:
    found = []
    for temperature, beta, entropy in itertools.product(grid.temperature, grid.beta, grid.entropy):
        setting = base.changed(
            policy={"weights": grid.gate | {"entropy": entropy}},
            training={"beta": beta, "tempering": {"start": temperature, "steps": grid.steps}},
        )
        found.append(Variant({"temperature": temperature, "beta": beta, "entropy": entropy}, setting))
    return found


@styled
def draw(results: Results) -> Figure:
    """A line of heat maps for each temperature: variance of q, recovery, likelihood."""
    temperatures = results.axis("temperature")
    likelihoods = results.values(LOG_LIKELIHOOD.value)
    shown = (
        (VARIANCE_Q, "variance of q", (0.0, 1.0)),
        (NMI, "NMI", (0.0, 1.0)),
        (LOG_LIKELIHOOD, "log-likelihood", (min(likelihoods), max(likelihoods))),
    )
    picture, axes = panels(3 * len(temperatures), 2.3)
    for place, ax in enumerate(axes):
        temperature = temperatures[place // 3]
        column, title, limits = shown[place % 3]
        heat(ax, results, "beta", "entropy", column.value, limits, temperature=temperature)
        ax.set_title(f"{title}, τ = {temperature}", fontsize=9)
        ax.set_xlabel("λ_ent")
        ax.set_ylabel("β")
    return picture


STUDY = Study(
    name="collapse",
    question="For which β, λ_ent and temperature of the E-step do the experts part, and where do they collapse?",
    grid=Collapse,
    variants=variants,
    columns=(LOG_LIKELIHOOD, VARIANCE_Q, NMI, ENTROPY_Q, ENTROPY_W, EFFECTIVE),
    draw=draw,
)
