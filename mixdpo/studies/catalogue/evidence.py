"""Annotator evidence: how many comparisons an annotator must give before the experts find the tastes."""

from __future__ import annotations

import itertools
from typing import Literal

from matplotlib.figure import Figure

from mixdpo.config.base import Count
from mixdpo.evaluation.plots import styled
from mixdpo.studies.catalogue.fixed_weights import UNIFORM
from mixdpo.studies.drawing import CHANCE, COLOURS, curve, row_of, titled
from mixdpo.studies.setting import Grid, Setting, Variant
from mixdpo.studies.study import (
    ACCURACY,
    ENTROPY_Q,
    LOG_LIKELIHOOD,
    NMI,
    RECOVERED,
    STRANGER,
    Results,
    Study,
)


class Evidence(Grid):
    comparisons: tuple[Count, ...]  # an annotator, in training and in the test
    latent: tuple[Literal["pair", "annotator"], ...]
    train_pairs: Count  # in all, however many annotators share them
    test_pairs: Count


def variants(base: Setting, grid: Evidence) -> list[Variant]:
    found = []
    for latent, each in itertools.product(grid.latent, grid.comparisons):
        people = {"train": grid.train_pairs // each, "test": grid.test_pairs // each, "pairs": each}
        setting = base.changed(policy={"weights": UNIFORM, "latent": latent}).asking(**people)
        found.append(Variant({"latent": latent, "comparisons": each}, setting))
    return found


@styled
def draw(results: Results) -> Figure:
    picture, axes = row_of(2, 3.0)
    for ax, column in zip(axes, (LOG_LIKELIHOOD, RECOVERED), strict=True):
        for place, latent in enumerate(results.axis("latent")):
            label = f"latent: {latent}"
            curve(ax, results, "comparisons", column.value, label, COLOURS[place], latent=latent)
        ax.set_xlabel("comparisons of each annotator")
    axes[0].axhline(CHANCE, color="#7a7a7a", lw=0.8, ls=":")
    axes[1].axhline(1 / 3, color="#7a7a7a", lw=0.8, ls=":")
    axes[1].set_ylim(0, 1.03)
    axes[1].legend()
    titled(axes, ("held-out log-likelihood (nats a pair)", "annotators given their style's expert"))
    return picture


STUDY = Study(
    name="evidence",
    question="How many comparisons of an annotator does it take, and what if each comparison has a latent of its own?",
    grid=Evidence,
    variants=variants,
    columns=(LOG_LIKELIHOOD, STRANGER, ACCURACY, NMI, RECOVERED, ENTROPY_Q),
    draw=draw,
)
