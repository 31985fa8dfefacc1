"""Did the experts find the tastes? Responsibilities against known styles, and how the latent is used.

A high mutual information alone proves nothing (mixtures-fail.md §4.3), so recovery of known styles stands beside it.
B pairs, K experts, S styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import entr
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from mixdpo.evaluation.statistics import Floats


def mean_by(values: Floats, labels: Sequence[str]) -> dict[str, list[float]]:
    """Mean row of `values` (rows, columns) for each label, in alphabetical order."""
    names = np.array(labels)
    return {name: values[names == name].mean(axis=0).tolist() for name in sorted(set(labels))}


def latent_use(responsibilities: Floats, weights: Floats) -> dict[str, Any]:
    """How much the latent says, whether or not styles are known.

    Args:
        responsibilities: (rows, K), one row a draw of the latent (a pair, or an annotator).
        weights: (B, K) mixing weights of the prompts.

    Returns:
        usage: mean q, and mean_weights: mean w, both (K,);
        entropy_q, entropy_w: mean entropies in units of log K (1 is uniform);
        mutual_information: H(mean q) − mean H(q), nats, and mutual_information_share of log K;
        effective_experts: exp H(mean q).
    """
    experts = responsibilities.shape[1]
    unit = np.log(experts) if experts > 1 else 1.0
    usage = responsibilities.mean(axis=0)
    information = max(0.0, float(entr(usage).sum() - entr(responsibilities).sum(axis=1).mean()))
    return {
        "usage": usage.tolist(),
        "mean_weights": weights.mean(axis=0).tolist(),
        "entropy_q": float(entr(responsibilities).sum(axis=1).mean() / unit),
        "entropy_w": float(entr(weights).sum(axis=1).mean() / unit),
        "mutual_information": information,
        "mutual_information_share": information / float(unit),
        "effective_experts": float(np.exp(entr(usage).sum())),
    }


def assign(responsibilities: Floats, styles: Sequence[str]) -> dict[str, int]:
    """The expert of each style: the one-to-one assignment with most agreement (Hungarian method).

    With fewer experts than styles, a style left over takes the expert that is most responsible for it.
    """
    names = sorted(set(styles))
    table = np.array(list(mean_by(responsibilities, styles).values()))  # (S, K)
    counts = np.array([list(styles).count(name) for name in names], dtype=np.float64)
    rows, columns = linear_sum_assignment(table * counts[:, None], maximize=True)
    chosen = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return {name: chosen.get(row, int(table[row].argmax())) for row, name in enumerate(names)}


def recovery(responsibilities: Floats, styles: Sequence[str]) -> dict[str, Any]:
    """Agreement of argmax q with known styles; labels of experts do not matter.

    Args:
        responsibilities: (rows, K).
        styles: (rows,).

    Returns:
        nmi, ari: of argmax q against the style;
        accuracy: share of rows whose argmax q is its style's expert under the best `assignment`;
        assignment: style → expert; matrix: style → mean q, (K,).
    """
    experts = responsibilities.argmax(axis=1)
    assignment = assign(responsibilities, styles)
    wanted = np.array([assignment[style] for style in styles])
    return {
        "nmi": float(np.clip(normalized_mutual_info_score(list(styles), experts), 0.0, 1.0)),
        "ari": float(adjusted_rand_score(list(styles), experts)),
        "accuracy": float((experts == wanted).mean()),
        "assignment": assignment,
        "matrix": mean_by(responsibilities, styles),
        "rows": len(styles),
    }


def routing(weights: Floats, domains: Sequence[str], styles: Sequence[str] | None, assignment: dict[str, int]) -> Any:
    """Where the weights send prompts: mean w of each domain, and how often argmax w is the annotator's own expert.

    `accuracy` is None where styles are unknown, or where the weights are the same for all prompts.
    """
    varies = bool(np.ptp(weights, axis=0).max() > 1e-6)
    accuracy = None
    if styles is not None and varies:
        accuracy = float((weights.argmax(axis=1) == np.array([assignment[style] for style in styles])).mean())
    return {"by_domain": mean_by(weights, domains), "accuracy": accuracy}


def margin_spread(margins: Floats) -> float:
    """Mean standard deviation of a pair's margins over experts, nats: 0 where experts never parted."""
    return float(margins.std(axis=1).mean())
