"""The gate out of distribution: prompts about one domain in the language of the other."""

from __future__ import annotations

from matplotlib.figure import Figure

from mixdpo.config.base import Count
from mixdpo.evaluation.plots import styled
from mixdpo.studies.catalogue.fixed_weights import UNIFORM
from mixdpo.studies.catalogue.gates import Population, two_tastes
from mixdpo.studies.drawing import row_of, titled
from mixdpo.studies.setting import Grid, Setting, Variant
from mixdpo.studies.study import Column, Results, Study, figure


class Crossed(Grid):
    population: Population
    prompts: Count  # about each domain, in each language


def variants(base: Setting, grid: Crossed) -> list[Variant]:
    start = two_tastes(base, grid.population).changed(crossed=grid.prompts)
    weights = {"learned gate": grid.population.gate, "fixed 1/K": UNIFORM}
    return [Variant({"weights": name}, start.changed(policy={"weights": each})) for name, each in weights.items()]


COLUMNS = tuple(
    Column(f"{title}, {name}", figure(f"{name}.{path}"), digits)
    for title, path, digits in (
        ("follows subject", "follows", 2),
        ("weight", "weight", 2),
        ("stranger", "stranger.mean", 3),
        ("gate's gain", "gate_gain.mean", 3),
        ("known annotator", "log_likelihood.mean", 3),
    )
    for name in ("plain", "crossed")
)


@styled
def draw(results: Results) -> Figure:
    picture, axes = row_of(2, 2.2)
    learned = Results(results.of(weights="learned gate"))
    for ax, path in zip(axes, ("follows", "gate_gain.mean"), strict=True):
        for place, name in enumerate(("plain", "crossed")):
            values = learned.values(figure(f"{name}.{path}"))
            ax.plot(values, [place] * len(values), "o", color=("#0072B2", "#D55E00")[place], markersize=7, alpha=0.7)
        ax.set_yticks((0, 1), ("own language", "the other's"))
        ax.set_ylim(1.5, -0.5)
        ax.grid(axis="x")
    axes[0].axvline(0.5, color="#7a7a7a", lw=0.8, ls=":")
    axes[1].axvline(0.0, color="#7a7a7a", lw=0.8, ls=":")
    axes[1].set_yticklabels([])
    titled(axes, ("prompts routed by their subject", "what the gate gains a stranger (nats a pair)"))
    return picture


STUDY = Study(
    name="crossed",
    question="Where does the gate send prompts about one domain in the language of the other, and what does that cost?",
    grid=Crossed,
    variants=variants,
    columns=COLUMNS,
    draw=draw,
)
