"""What reward models make of the samples: by held-out judges, and by the annotators' models that labelled the pairs.

Training pushed towards the annotators' models; where they are happier than the judges, a policy has learnt their
quirks and not the taste (method.md §9).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.statistics import Bootstrap, Floats

Role = Literal["judge", "annotator"]
ROLES: tuple[Role, ...] = ("judge", "annotator")


def texts_of(samples: list[Samples], prompts: Prompts) -> list[tuple[str, str]]:
    """All that was written: (prompt, completion), by policy, expert and row."""
    return [
        pair
        for each in samples
        for completions in each.completions
        for pair in zip(prompts.texts, completions, strict=True)
    ]


def keep_scores(samples: list[Samples], role: Role, dimension: str, scores: Floats) -> None:
    """Put scores of `texts_of` where they belong: (R, K) in each `Samples.scores[role][dimension]`."""
    start = 0
    for each in samples:
        rows = len(each.weights)
        count = each.experts * rows
        each.scores.setdefault(role, {})[dimension] = scores[start : start + count].reshape(each.experts, rows).T
        start += count


def reward_table(
    each: Samples, baselines: dict[str, Samples], prompts: Prompts, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Mean scores of one policy's mixture, with paired differences to the mixtures of `baselines`.

    Returns:
        {role: {dimension: interval, …}, "minus_NAME": {role: {dimension: interval}}}, clustered by prompt.
    """
    table: dict[str, Any] = {}
    for role, dimensions in each.scores.items():
        names = list(dimensions)
        own = _mixtures(each, role, names)
        table[role] = _intervals(own, names, prompts, bootstrap)
        for name, baseline in baselines.items():
            if name != each.policy:
                gap = own - _mixtures(baseline, role, names)
                table.setdefault(f"minus_{name}", {})[role] = _intervals(gap, names, prompts, bootstrap)
    return table


def expert_rewards(each: Samples, expert: int, prompts: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    """Mean scores of one expert alone: {role: {dimension: interval}}."""
    return {
        role: _intervals(
            np.stack([scores[:, expert] for scores in dimensions.values()], axis=1),
            list(dimensions),
            prompts,
            bootstrap,
        )
        for role, dimensions in each.scores.items()
    }


def _mixtures(each: Samples, role: str, names: list[str]) -> Floats:
    return np.stack([each.mixture(each.scores[role][name]) for name in names], axis=1)


def _intervals(values: Floats, names: list[str], prompts: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    intervals = bootstrap.means(values, prompts.groups)
    return {name: interval.record() for name, interval in zip(names, intervals, strict=True)}
