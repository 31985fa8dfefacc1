"""What is measured of a trained variant: one flat record of numbers for tables and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.measure import Opinion, preference_part, specialisation_part
from mixdpo.evaluation.preference import Judgement, log_predictive, log_sigmoid
from mixdpo.evaluation.statistics import Bootstrap, Floats

RESAMPLES = 1000
DIGITS = 4  # of points in pictures


def heldout_figures(judgement: Judgement, pairs: HeldOut, seed: int) -> dict[str, Any]:
    """Likelihood, recovery and use of the latent on held-out annotators (keys as in the record below)."""
    bootstrap = Bootstrap(RESAMPLES, seed)
    own = Opinion.of(judgement, pairs)
    preference = preference_part("variant", {"variant": own}, pairs, bootstrap)
    worst = preference["worst_style"]
    record = {
        "pairs": len(pairs),
        "log_likelihood": preference["log_likelihood"],  # given the annotator's other pairs, where the latent is theirs
        "accuracy": preference["accuracy"],
        "stranger": preference["stranger"]["log_likelihood"],  # given none
        "gate_gain": bootstrap.difference(own.stranger, _ungated(own.judgement, pairs), pairs.groups).record(),
        "worst_style": None if worst is None else {"name": worst, **preference["by_style"][worst]["log_likelihood"]},
    }
    use = specialisation_part(own, pairs)
    return record if use is None else record | _latent(own, pairs, use)


def _ungated(judgement: Judgement, pairs: HeldOut) -> Floats:
    """(B,) nats: log p of a stranger's labels had the experts equal weights."""
    uniform = np.full_like(judgement.log_weights, -np.log(judgement.log_weights.shape[1]))
    return log_predictive(Judgement(judgement.margins, uniform, judgement.latent), pairs.groups, comparisons=0)


def _latent(own: Opinion, pairs: HeldOut, use: dict[str, Any]) -> dict[str, Any]:
    """What only a mixture has. Recovery is of annotators, from all their pairs, whatever latent was trained with."""
    _, first = np.unique(pairs.groups, return_index=True)
    people = own.annotator_q[first]
    evidence = log_sigmoid(own.judgement.margins)
    summed = np.stack([np.bincount(pairs.groups, weights=column) for column in evidence.T], axis=1)
    found = use["annotators"]
    return {
        **{name: use[name] for name in ("usage", "effective_experts", "entropy_q", "entropy_w", "margin_spread")},
        **{name: found[name] for name in ("nmi", "ari", "matrix", "assignment")},
        "recovered": found["accuracy"],  # share of annotators whose argmax q is their style's expert
        "pair_matrix": use["pairs"]["matrix"],
        "variance_q": variance(people),
        "routing": use["routing"]["accuracy"],
        "weights_by_domain": use["routing"]["by_domain"],
        "people": {
            "style": [str(pairs.styles[place]) for place in first],
            "q": _short(people),
            "evidence": _short(summed),
        },
        "points": {"style": [str(style) for style in pairs.styles], "evidence": _short(evidence)},
    }


def variance(responsibilities: Floats) -> float:
    """Variance of q over rows, summed over experts, as a share of what certain and evenly spread rows have.

    0 is collapse, to uniform responsibilities or to one expert; 1 is perfect.
    """
    experts = responsibilities.shape[1]
    return float(responsibilities.var(axis=0).sum() / (1 - 1 / experts))


def _short(values: NDArray) -> list[Any]:
    rows: list[Any] = np.round(values, DIGITS).tolist()
    return rows


def prompt_routing(
    judgement: Judgement, pairs: HeldOut, assignment: dict[str, int], favourites: dict[str, str]
) -> dict[str, Any]:
    """Where the weights send prompts about each domain, each prompt counted once.

    Args:
        assignment: style → expert.
        favourites: domain → the style that judges it most.

    Returns:
        follows: share of prompts whose heaviest expert is that of their domain's style, and weight: its mean weight.
    """
    _, first = np.unique(np.array(pairs.columns["prompt"]), return_index=True)
    weights = np.exp(judgement.log_weights[first])
    own = np.array([assignment[favourites[pairs.domains[place]]] for place in first])
    return {
        "follows": float((weights.argmax(axis=1) == own).mean()),
        "weight": float(weights[np.arange(len(own)), own].mean()),
        "prompts": len(first),
    }
