"""Specialisation: do annotators of one style lie together in the experts' eyes? The paper's first figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixdpo.evaluation.plots import EXPERT_COLOURS, MARKERS, panels, styled
from mixdpo.studies.catalogue.fixed_weights import UNIFORM
from mixdpo.studies.drawing import COLOURS
from mixdpo.studies.setting import Grid, Setting, Variant
from mixdpo.studies.study import ENTROPY_Q, LOG_LIKELIHOOD, NMI, RECOVERED, VARIANCE_Q, Column, Results, Study, figure

MOST = 600  # pairs in a picture


def variants(base: Setting, _: Grid) -> list[Variant]:
    return [
        Variant({"latent": latent}, base.changed(policy={"weights": UNIFORM, "latent": latent}))
        for latent in ("pair", "annotator")
    ]


@styled
def draw(results: Results) -> Figure:
    """A line of panels for each latent: annotators by q, pairs by style, mean q of each style. The first seed's run."""
    latents = results.axis("latent")
    picture, axes = panels(3 * len(latents), 3.0)
    for place, latent in enumerate(latents):
        figures = results.of(latent=latent)[0].figures
        _annotators(axes[3 * place], figures["people"])
        _pairs(axes[3 * place + 1], figures["points"])
        _matrix(axes[3 * place + 2], figures["matrix"])
        axes[3 * place].set_ylabel(f"latent: {latent}")
    return picture


def _annotators(ax: Axes, people: dict[str, Any]) -> None:
    q, styles = np.array(people["q"]), np.array(people["style"])
    places = _spread(np.array(people["evidence"]))
    for number, style in enumerate(sorted(set(styles))):
        mine = styles == style
        colours = [EXPERT_COLOURS[expert] for expert in q[mine].argmax(axis=1)]
        marker = MARKERS[number % len(MARKERS)]
        x, y = places[mine].T
        ax.scatter(x, y, c=colours, marker=marker, s=26, linewidth=0)
        ax.scatter([], [], c="#555555", marker=marker, s=26, label=style)
    ax.set(xticks=[], yticks=[])
    ax.set_title("annotators (colour: argmax q)", fontsize=9)
    ax.legend(fontsize=7, handletextpad=0.1, loc="best")


def _pairs(ax: Axes, points: dict[str, Any]) -> None:
    styles = np.array(points["style"])[:MOST]
    places = _spread(np.array(points["evidence"])[:MOST])
    for number, style in enumerate(sorted(set(styles))):
        x, y = places[styles == style].T
        ax.scatter(x, y, s=6, color=COLOURS[number], linewidth=0, label=style)
    ax.set(xticks=[], yticks=[])
    ax.set_title("pairs (colour: style)", fontsize=9)
    ax.legend(fontsize=7, handletextpad=0.1, loc="best")


def _matrix(ax: Axes, matrix: dict[str, list[float]]) -> None:
    values = np.array(list(matrix.values()))
    ax.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for y, x in np.ndindex(*values.shape):
        ax.text(x, y, f"{values[y, x]:.2f}", ha="center", va="center", color="black" if values[y, x] > 0.5 else "white")
    ax.set_xticks(range(values.shape[1]), [f"expert {k}" for k in range(values.shape[1])], fontsize=8)
    ax.set_yticks(range(len(values)), list(matrix), rotation=90, va="center", fontsize=8)
    ax.set_title("mean q of a style's annotators", fontsize=9)


def _spread(evidence: np.ndarray) -> np.ndarray:
    """t-SNE of rows of log-likelihoods under the experts, what all experts agree on taken out: (rows, 2)."""
    from sklearn.manifold import TSNE

    apart = evidence - evidence.mean(axis=1, keepdims=True)
    scaled = apart / max(float(apart.std()), 1e-9)
    perplexity = min(30.0, (len(scaled) - 1) / 3)
    places: np.ndarray = TSNE(2, perplexity=perplexity, init="random", random_state=0).fit_transform(scaled)
    return places


SPREAD = Column("spread of margins", figure("margin_spread"), 2)

STUDY = Study(
    name="specialisation",
    question="Do the experts tell annotators of different styles apart, and do single pairs?",
    grid=Grid,
    variants=variants,
    columns=(LOG_LIKELIHOOD, NMI, RECOVERED, VARIANCE_Q, ENTROPY_Q, SPREAD),
    draw=draw,
)
