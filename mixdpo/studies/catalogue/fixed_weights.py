"""Fixed weights: is a mixture with w = 1/K, and nothing else learned about the weights, better than DPO?"""

from __future__ import annotations

from matplotlib.figure import Figure

from mixdpo.evaluation.plots import styled
from mixdpo.studies.drawing import CHANCE, dots, row_of, titled
from mixdpo.studies.setting import Grid, Setting, Variant
from mixdpo.studies.study import (
    ACCURACY,
    ENTROPY_Q,
    LOG_LIKELIHOOD,
    NMI,
    SECONDS,
    STRANGER,
    WORST_STYLE,
    Results,
    Study,
)

UNIFORM = {"kind": "fixed", "values": None}
NOTHING = {"kind": "none"}
FULL_HEADS = {"kind": "shared", "head": "linear", "rank": None, "trunk": "frozen"}


def variants(base: Setting, _: Grid) -> list[Variant]:
    mixture = base.changed(policy={"weights": UNIFORM})
    # low-rank heads differ from the start by what is random in them; only full heads are copies of one another
    copies = mixture.changed(
        policy={"architecture": FULL_HEADS, "symmetry": NOTHING},
        # a full head has many more parameters: at the rate of low-rank ones it only learns the training pairs by heart
        training={"learning_rate": base.training.learning_rate / 5},
    )
    settings = {
        "dpo": mixture.changed(policy={"experts": 1, "symmetry": NOTHING}),
        "mix, latent of a pair": mixture.changed(policy={"latent": "pair"}),
        "mix, latent of an annotator": mixture.changed(policy={"latent": "annotator"}),
        "dpo, full head": copies.changed(policy={"experts": 1}),
        "mix, equal full heads": copies,
    }
    return [Variant({"policy": name}, setting) for name, setting in settings.items()]


@styled
def draw(results: Results) -> Figure:
    figure, axes = row_of(2, 2.4)
    for ax, column in zip(axes, (LOG_LIKELIHOOD, NMI), strict=True):
        dots(ax, results, "policy", column.value)
    axes[0].axvline(CHANCE, color="#7a7a7a", lw=0.8, ls=":")
    axes[1].set(yticklabels=[], xlim=(-0.03, 1.03))
    titled(axes, ("log-likelihood (nats a pair)", "NMI of experts and styles"))
    return figure


STUDY = Study(
    name="fixed-weights",
    question="Is a mixture with fixed weights 1/K better than DPO, and what must break its symmetry?",
    grid=Grid,
    variants=variants,
    columns=(LOG_LIKELIHOOD, STRANGER, ACCURACY, WORST_STYLE, NMI, ENTROPY_Q, SECONDS),
    draw=draw,
)
