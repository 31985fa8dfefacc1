"""What predicts a preference without any policy: which text is longer, and what other annotators said of the pair."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax

from mixdpo.evaluation.preference import Ids, log_sigmoid
from mixdpo.evaluation.statistics import Floats

STEEPEST = 50.0
ROUNDS, SETTLED, FLAT = 1000, 1e-6, 1e-9


def length_gap(chosen: Sequence[str], rejected: Sequence[str]) -> Floats:
    """(B,) log of characters of the chosen text over those of the rejected: above 0 where the longer one won."""
    sizes = [[max(len(text), 1) for text in side] for side in (chosen, rejected)]
    return np.asarray(np.log(sizes[0]) - np.log(sizes[1]), dtype=np.float64)


def length_slope(gaps: Floats) -> float:
    """The maximum-likelihood a of p(chosen) = σ(a · gap), Bradley–Terry with log length as the only reward."""
    found = minimize_scalar(lambda a: -log_sigmoid(a * gaps).mean(), bounds=(-STEEPEST, STEEPEST), method="bounded")
    return float(found.x)


def length_tastes(gaps: Floats, annotators: Ids, kinds: int) -> tuple[Floats, Floats]:
    """`kinds` slopes, each annotator of one kind: what a mixture finds where length is all that anyone looks at.

    EM from slopes around the common one, until it stands still: each annotator's posterior over kinds, then for each
    kind one Newton step on its weighted log-likelihood.

    Returns:
        slopes (kinds,), ascending, and how many annotators are of each kind (kinds,), sums to 1.
    """
    slopes = length_slope(gaps) + np.linspace(-1.0, 1.0, kinds)
    shares = np.full(kinds, 1 / kinds)
    for _ in range(ROUNDS):
        evidence = np.zeros((annotators.max() + 1, kinds))
        np.add.at(evidence, annotators, log_sigmoid(gaps[:, None] * slopes))
        q = softmax(np.log(shares) + evidence, axis=1)
        wrong = expit(-gaps[:, None] * slopes)
        gradient = (q[annotators] * wrong * gaps[:, None]).sum(axis=0)
        curvature = (q[annotators] * wrong * (1 - wrong) * gaps[:, None] ** 2).sum(axis=0)
        step = gradient / np.maximum(curvature, FLAT)
        slopes, shares = slopes + np.clip(step, -1.0, 1.0), q.mean(axis=0)
        if np.abs(step).max() < SETTLED:
            break
    order = np.argsort(slopes)
    return slopes[order], shares[order]


def consensus(pairs: Sequence[tuple[str, str, str]], annotators: Sequence[Any]) -> Floats:
    """How far the others who compared the same two texts agree with each label.

    Args:
        pairs: (prompt, chosen, rejected) of each label.
        annotators: who gave it; nobody's own label counts for them.

    Returns:
        (B,): 1 where most others chose the same, 0 where most chose the other, ½ on a tie, NaN where there are none.
    """
    votes: dict[tuple[str, frozenset[str]], list[tuple[Any, str]]] = defaultdict(list)
    for (prompt, chosen, rejected), annotator in zip(pairs, annotators, strict=True):
        votes[prompt, frozenset((chosen, rejected))].append((annotator, chosen))
    result = np.full(len(pairs), np.nan)
    for place, ((prompt, chosen, rejected), annotator) in enumerate(zip(pairs, annotators, strict=True)):
        others = [choice for who, choice in votes[prompt, frozenset((chosen, rejected))] if who != annotator]
        if others:
            agree = sum(choice == chosen for choice in others)
            result[place] = 0.5 + 0.5 * np.sign(2 * agree - len(others))
    return result
