"""The check that only the embedded corpus allows: are samples better in truth, and do the judges see it?"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixdpo.data.embedded import truth
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.statistics import Bootstrap, Floats

# reward dimension → property of a generated text
PROPERTIES = {"sentiment": "sentiment", "grammar": "grammar", "informativeness": "detail"}


def measure(samples: list[Samples], prompts: Prompts) -> dict[str, dict[str, Floats]]:
    """{policy: {dimension: (R, K) in [0, 1]}} for the dimensions whose truth is known."""
    result = {}
    for each in samples:
        known = [
            [truth(prompt + text) for prompt, text in zip(prompts.texts, completions, strict=True)]
            for completions in each.completions
        ]
        result[each.policy] = {
            dimension: np.array([[getattr(one, name) for one in row] for row in known], dtype=np.float64).T
            for dimension, name in PROPERTIES.items()
        }
    return result


def truth_table(
    samples: list[Samples], measured: dict[str, dict[str, Floats]], prompts: Prompts, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Mean truth of each policy and expert, and how judges' scores go with it over all samples.

    Returns:
        policies: {policy: {"mixture": {dimension: interval}, "experts": [{dimension: interval}, …]}};
        correlation: {dimension: Pearson's r of judge and truth}, None where either never varies.
    """
    policies = {}
    for each in samples:
        own = measured[each.policy]
        policies[each.policy] = {
            "mixture": {
                name: bootstrap.mean(each.mixture(rows), prompts.groups).record() for name, rows in own.items()
            },
            "experts": [
                {name: bootstrap.mean(rows[:, k], prompts.groups).record() for name, rows in own.items()}
                for k in range(each.experts)
            ],
        }
    judged = {name for each in samples for name in each.scores["judge"]}
    return {
        "policies": policies,
        "correlation": {
            name: _correlation(
                np.concatenate([each.scores["judge"][name].ravel() for each in samples]),
                np.concatenate([measured[each.policy][name].ravel() for each in samples]),
            )
            for name in PROPERTIES
            if name in judged
        },
    }


def _correlation(left: Floats, right: Floats) -> float | None:
    if left.std() == 0 or right.std() == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])
