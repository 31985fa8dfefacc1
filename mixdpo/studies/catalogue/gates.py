"""Gate ablation: does a learned gate beat weights that do not learn, or that a rule gives?"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from mixdpo.config.base import NonNegative, Section
from mixdpo.config.data import Style
from mixdpo.evaluation.plots import styled
from mixdpo.studies.catalogue.fixed_weights import UNIFORM
from mixdpo.studies.drawing import dots, row_of, titled
from mixdpo.studies.setting import Grid, Setting, Variant
from mixdpo.studies.study import (
    ENTROPY_W,
    LOG_LIKELIHOOD,
    NMI,
    STRANGER,
    Column,
    Results,
    Study,
    figure,
)

ROUTED = Column("routed right", figure("routing"), 2)
GAIN = Column("gate's gain", figure("gate_gain.mean"))


class Population(Section):
    """Two tastes, each mostly about one domain, so that a prompt tells much about who asks."""

    styles: dict[str, Style]
    gate: dict[str, Any]  # weights of kind gate, learned
    confidence: NonNegative  # of the random and domain gates


class Gates(Grid):
    population: Population


def two_tastes(base: Setting, population: Population) -> Setting:
    """The base setting with one expert for each of these styles."""
    return base.changed(
        labelling={"styles": {name: style.model_dump() for name, style in population.styles.items()}},
        policy={"experts": len(population.styles)},
    )


def variants(base: Setting, grid: Gates) -> list[Variant]:
    population = grid.population
    # the domain gate gives each domain an expert, in this order
    domains = sorted({domain for style in population.styles.values() for domain in style.domains or {}})
    weights: dict[str, dict[str, Any]] = {
        "fixed 1/K": UNIFORM,
        "frozen gate": population.gate | {"frozen": True},
        "random gate": {"kind": "random", "confidence": population.confidence},
        "domain gate": {
            "kind": "domain",
            "confidence": population.confidence,
            "experts": {domain: expert for expert, domain in enumerate(domains)},
        },
        "learned gate": population.gate,
    }
    start = two_tastes(base, population)
    return [Variant({"weights": name}, start.changed(policy={"weights": each})) for name, each in weights.items()]


@styled
def draw(results: Results) -> Figure:
    picture, axes = row_of(3, 2.6)
    for place, (ax, column) in enumerate(zip(axes, (STRANGER, LOG_LIKELIHOOD, NMI), strict=True)):
        dots(ax, results, "weights", column.value)
        if place:
            ax.set_yticklabels([])
    axes[2].set_xlim(-0.03, 1.03)
    titled(axes, ("a stranger's pairs (nats)", "a known annotator's (nats)", "NMI"))
    return picture


STUDY = Study(
    name="gates",
    question="Does a learned gate beat weights that are fixed, frozen, random or given by the domain's label?",
    grid=Gates,
    variants=variants,
    columns=(STRANGER, GAIN, LOG_LIKELIHOOD, NMI, ROUTED, ENTROPY_W),
    draw=draw,
)
