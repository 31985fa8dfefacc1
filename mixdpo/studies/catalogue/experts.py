"""Number of experts: what happens with fewer experts than tastes, and with more?"""

from __future__ import annotations

from matplotlib.figure import Figure

from mixdpo.config.base import Count
from mixdpo.evaluation.plots import styled
from mixdpo.studies.catalogue.fixed_weights import UNIFORM
from mixdpo.studies.drawing import COLOURS, curve, row_of, titled
from mixdpo.studies.setting import Grid, Setting, Variant
from mixdpo.studies.study import (
    LOG_LIKELIHOOD,
    NMI,
    SECONDS,
    WORST_STYLE,
    Column,
    Results,
    Study,
    figure,
)

EFFECTIVE = Column("effective experts", figure("effective_experts"), 2)
LEAST = Column("least used", lambda figures: min(figures["usage"]) if "usage" in figures else None, 2)


class Experts(Grid):
    experts: tuple[Count, ...]


def variants(base: Setting, grid: Experts) -> list[Variant]:
    found = []
    for experts in grid.experts:
        symmetry = base.policy.symmetry.model_dump() if experts > 1 else {"kind": "none"}
        setting = base.changed(policy={"weights": UNIFORM, "experts": experts, "symmetry": symmetry})
        found.append(Variant({"experts": experts}, setting))
    return found


@styled
def draw(results: Results) -> Figure:
    picture, axes = row_of(3, 2.6)
    for ax, column, colour in zip(axes, (LOG_LIKELIHOOD, NMI, EFFECTIVE), COLOURS, strict=False):
        curve(ax, results, "experts", column.value, column.title, colour)
        ax.set_xlabel("experts")
    axes[1].set_ylim(0, 1.03)
    titled(axes, ("log-likelihood (nats)", "NMI", "experts in use, exp H(mean q)"))
    return picture


STUDY = Study(
    name="experts",
    question="What do fewer experts than tastes, and more, do to likelihood, recovery and usage?",
    grid=Experts,
    variants=variants,
    columns=(LOG_LIKELIHOOD, WORST_STYLE, NMI, EFFECTIVE, LEAST, SECONDS),
    draw=draw,
)
