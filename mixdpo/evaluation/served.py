"""What an annotator of each style gets: from SFT, DPO, and a mixture with more and more knowledge of who they are.

The reward of style s is its own weighting of the judges' scores, in standard deviations of the SFT policy's samples.
R rows (prompts), K experts, A annotators of the style.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax

from mixdpo.config.data import Style
from mixdpo.evaluation.preference import Ids, Judgement, log_sigmoid
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.statistics import Bootstrap, Floats

COMPARISONS = (0, 1, 2, 4, 8, 16)
NORMALISERS_AT_ONCE = 1 << 20  # prompts times annotators in memory together
UNDERFLOW = 1e-250
FLAT = 1e-9  # a judge that gives all SFT samples one score has no scale of its own


@dataclass(frozen=True)
class Taste:
    """One style's reward: Σ_d weight_d · (judge_d − centre_d) / scale_d."""

    weights: dict[str, float]
    centre: dict[str, float]
    scale: dict[str, float]

    @classmethod
    def of(cls, style: Style, sft: Samples) -> Taste:
        judged = {name: sft.scores["judge"][name] for name in style.weights}
        return cls(
            dict(style.weights),
            {name: float(scores.mean()) for name, scores in judged.items()},
            {name: max(float(scores.std()), FLAT) for name, scores in judged.items()},
        )

    def reward(self, each: Samples) -> Floats:
        """(R, K), standard deviations of SFT's samples."""
        judged = each.scores["judge"]
        parts = [w * (judged[name] - self.centre[name]) / self.scale[name] for name, w in self.weights.items()]
        return np.asarray(sum(parts))


def evidence_after(judgement: Judgement, annotators: Ids, comparisons: int) -> Floats:
    """Σ log σ(m) over each annotator's first `comparisons` pairs (or all, where fewer): (annotators, K), ascending."""
    evidence = log_sigmoid(judgement.margins)
    unique, member = np.unique(annotators, return_inverse=True)
    order = np.argsort(member, kind="stable")
    place = np.empty(len(member), dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(np.bincount(member))[:-1]])
    place[order] = np.arange(len(member)) - first[member[order]]
    total = np.zeros((len(unique), evidence.shape[1]))
    np.add.at(total, member[place < comparisons], evidence[place < comparisons])
    return total


def personal_weights(log_weights: Floats, evidence: Floats) -> Floats:
    """Mean over annotators of w_k(x) · Π σ(m), normalised for each: (R, K).

    Args:
        log_weights: (R, K) of the prompts to answer.
        evidence: (A, K) of the style's annotators, nats.
    """
    weights, likelihood = (np.exp(each - each.max(axis=1, keepdims=True)) for each in (log_weights, evidence))
    result = np.empty_like(weights)
    at_once = max(1, NORMALISERS_AT_ONCE // len(likelihood))
    for start in range(0, len(weights), at_once):
        rows = slice(start, start + at_once)
        normalisers = weights[rows] @ likelihood.T  # (rows, A)
        if normalisers.min() > UNDERFLOW:
            result[rows] = weights[rows] * ((1 / normalisers) @ likelihood) / len(likelihood)
        else:
            result[rows] = _in_logs(log_weights[rows], evidence)
    return np.asarray(result)


def _in_logs(log_weights: Floats, evidence: Floats) -> Floats:
    """The same where a prompt and an annotator are certain of different experts; many times slower."""
    return np.stack([np.exp(log_softmax(own + evidence, axis=1)).mean(axis=0) for own in log_weights])


@dataclass(frozen=True)
class Held:
    """A policy's view of the held-out annotators of one style.

    Attributes:
        evidence: (A, K), nats, after so many comparisons, or all where someone has fewer.
        expert: the style's.
        pairs: (A,) comparisons that each annotator has.
    """

    evidence: dict[int, Floats]
    expert: int
    pairs: Ids


def served(
    each: Samples,
    taste: Taste,
    held: Held | None,
    baselines: dict[str, Samples],
    prompts: Prompts,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """What the style gets from one policy, under each way of weighting its experts.

    Args:
        held: None where no held-out annotator of this style has pairs.
        baselines: what to compare with, by name.

    Returns:
        prior: the policy as it answers a stranger; uniform: 1/K each; few_shot: {m: after m comparisons, with how many
        annotators have as many}; oracle: the style's expert alone. Each {"reward": interval, "minus_NAME": interval,
        …}, clustered by prompt, in standard deviations of SFT's samples. All but prior only where there is a choice of
        experts.
        The comparisons are of other completions than those judged here, but may be of the same prompts.
    """
    rewards = taste.reward(each)
    rows = {
        f"minus_{name}": other.mixture(taste.reward(other)) for name, other in baselines.items() if name != each.policy
    }

    def entry(weights: Floats) -> dict[str, Any]:
        own = (weights * rewards).sum(axis=1)
        columns = {"reward": own} | {name: own - other for name, other in rows.items()}
        intervals = bootstrap.means(np.stack(list(columns.values()), axis=1), prompts.groups)
        return {name: each.record() for name, each in zip(columns, intervals, strict=True)}

    result: dict[str, Any] = {"prior": entry(each.weights)}
    if each.experts == 1:
        return result
    result["uniform"] = entry(np.full_like(each.weights, 1 / each.experts))
    if held is not None:
        log_weights = np.log(np.maximum(each.weights, np.finfo(np.float64).tiny))
        result["few_shot"] = {
            str(m): entry(personal_weights(log_weights, evidence)) | {"annotators": int((held.pairs >= m).sum())}
            for m, evidence in held.evidence.items()
        }
        result["oracle"] = entry(np.eye(each.experts)[np.full(len(prompts), held.expert)])
    return result
