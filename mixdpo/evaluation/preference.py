"""Predicting held-out preferences: how likely a policy finds what the annotators said (method.md §6 and §9).

B pairs, K experts. All in float64 log space; probabilities appear on the last line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from mixdpo.evaluation.statistics import Bootstrap, Floats

Latent = Literal["pair", "annotator"]
Ids = NDArray[np.int64]

CALIBRATION_BINS = 10
ALL_OTHERS = None


@dataclass(frozen=True)
class Judgement:
    """What one policy thinks of the held-out pairs.

    Attributes:
        margins: (B, K), nats, β included; less what label noise takes (`MixturePolicy.preference_logits`).
        log_weights: (B, K), normalised: the weights for each pair's prompt.
        latent: what shares one expert.
    """

    margins: Floats
    log_weights: Floats
    latent: Latent


def log_sigmoid(values: Floats) -> Floats:
    """log σ, finite and accurate at any size."""
    return -np.logaddexp(0.0, -values)


@dataclass(frozen=True)
class History:
    """What the annotator of each held-out pair said elsewhere (in training, say), summed over those pairs.

    Attributes:
        evidence: (B, K), nats: Σ log σ(m).
        log_weights: (B, K): Σ log w.
        pairs: (B,) how many; 0 for an annotator never met before.
    """

    evidence: Floats
    log_weights: Floats
    pairs: Ids

    @classmethod
    def of(cls, judgement: Judgement, said: Sequence[str], asked: Sequence[str], most: int | None = None) -> History:
        """From earlier pairs.

        Args:
            judgement: of the earlier pairs.
            said: their annotators.
            asked: the annotator of each held-out pair.
            most: take only so many of each annotator's earlier pairs, the first ones; None: all.
        """
        names, codes = np.unique(np.array([*asked, *said]), return_inverse=True)
        later, earlier = codes[: len(asked)], codes[len(asked) :]
        order = np.argsort(earlier, kind="stable")
        place = np.empty(len(earlier), dtype=np.int64)
        first = np.concatenate([[0], np.cumsum(np.bincount(earlier, minlength=len(names)))[:-1]])
        place[order] = np.arange(len(earlier)) - first[earlier[order]]
        taken = place < (len(earlier) if most is None else most)

        def total(rows: Floats) -> Floats:
            sums = np.zeros((len(names), rows.shape[1]))
            np.add.at(sums, earlier[taken], rows[taken])
            return np.asarray(sums[later])

        pairs = np.bincount(earlier[taken], minlength=len(names))[later]
        return cls(total(log_sigmoid(judgement.margins)), total(judgement.log_weights), pairs)

    @classmethod
    def none(cls, judgement: Judgement) -> History:
        """Of held-out pairs by strangers, or whose weights know already what was said."""
        nothing = np.zeros_like(judgement.margins)
        return cls(nothing, nothing, np.zeros(len(nothing), dtype=np.int64))


def log_predictive(
    judgement: Judgement,
    annotators: Ids,
    comparisons: int | None = ALL_OTHERS,
    history: History | None = None,
) -> Floats:
    """log p of each pair's label, given some of its annotator's other labels; (B,), nats.

    With `latent: pair` a policy learns nothing from other pairs: log Σ_k w_k σ(m_k).
    With `latent: annotator`, w_k is replaced by the posterior from the `comparisons` pairs that follow this one in
    the annotator's own order (going round), at most all others: 0 is a stranger, None leaves one out. What `history`
    holds comes on top.
    The prior enters once: the mean of log w_k over this pair and those compared, renormalised.
    """
    evidence = log_sigmoid(judgement.margins)
    if judgement.latent == "pair":
        return np.asarray(logsumexp(judgement.log_weights + evidence, axis=1))
    likelihood, used = _sum_following(evidence, annotators, comparisons)
    prior, _ = _sum_following(judgement.log_weights, annotators, comparisons)
    if history is not None:
        likelihood, prior, used = likelihood + history.evidence, prior + history.log_weights, used + history.pairs
    prior = (prior + judgement.log_weights) / (used + 1)[:, None]
    posterior = log_softmax(prior + likelihood, axis=1)
    return np.asarray(logsumexp(posterior + evidence, axis=1))


def _sum_following(rows: Floats, groups: Ids, window: int | None) -> tuple[Floats, Ids]:
    """For each row the sum of the next `window` rows of its group, going round; and how many those were."""
    order = np.argsort(groups, kind="stable")
    _, first, size = np.unique(groups[order], return_index=True, return_counts=True)
    start, n = np.repeat(first, size), np.repeat(size, size)
    used = n - 1 if window is None else np.minimum(window, n - 1)
    cumulative = np.vstack([np.zeros((1, rows.shape[1])), np.cumsum(rows[order], axis=0)])
    begin = np.arange(len(rows)) + 1
    end, over = begin + used, start + n
    wrapped = np.maximum(end - over, 0)
    total = cumulative[np.minimum(end, over)] - cumulative[begin] + cumulative[start + wrapped] - cumulative[start]
    result, counts = np.empty_like(total), np.empty_like(used)
    result[order], counts[order] = total, used
    return result, counts


def hits(log_probability: Floats) -> Floats:
    """1 where the label was the likelier answer, 0 where not, ½ on a tie (a policy without opinion is half right)."""
    return np.where(np.isclose(log_probability, np.log(0.5), rtol=0, atol=1e-9), 0.5, log_probability > np.log(0.5))


def calibration_error(log_probability: Floats, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: |confidence − share right|, averaged over equal bins of confidence in [½, 1]."""
    probability = np.exp(log_probability)
    confidence = np.maximum(probability, 1 - probability)
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, weights=confidence - hits(log_probability), minlength=bins)
    return float(np.abs(gap).sum() / len(probability))


def preference_metrics(log_probability: Floats, annotators: Ids, bootstrap: Bootstrap) -> dict[str, Any]:
    """Log-likelihood (nats a pair) and accuracy with intervals clustered by annotator, and calibration error."""
    return {
        **_intervals(log_probability, hits(log_probability), annotators, bootstrap),
        "calibration_error": calibration_error(log_probability),
    }


def preference_difference(values: Floats, baseline: Floats, annotators: Ids, bootstrap: Bootstrap) -> dict[str, Any]:
    """Paired differences of log-likelihood and accuracy to another policy on the same pairs."""
    return _intervals(values - baseline, hits(values) - hits(baseline), annotators, bootstrap)


def _intervals(log_likelihood: Floats, accuracy: Floats, annotators: Ids, bootstrap: Bootstrap) -> dict[str, Any]:
    intervals = bootstrap.means(np.stack([log_likelihood, accuracy], axis=1), annotators)
    return {name: each.record() for name, each in zip(("log_likelihood", "accuracy"), intervals, strict=True)}


def by_style(
    log_probability: Floats, annotators: Ids, styles: Sequence[str | None], bootstrap: Bootstrap
) -> dict[str, dict[str, Any]]:
    """`preference_metrics` of each style's pairs; pairs of unknown style are left out."""
    names = np.array(["" if style is None else style for style in styles])
    return {
        style: preference_metrics(log_probability[names == style], annotators[names == style], bootstrap)
        for style in sorted(set(names.tolist()) - {""})
    }


def worst(groups: dict[str, dict[str, Any]], metric: str = "log_likelihood") -> str | None:
    """The group with the lowest mean, or None where there are no groups."""
    return min(groups, key=lambda group: (groups[group][metric]["mean"], group), default=None)
