"""Samples and held-out pairs whose right answers are known in advance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.statistics import Floats

ROWS = 12


@pytest.fixture
def prompts() -> Prompts:
    rows = [{"prompt_id": f"p{i}", "prompt": f"prompt {i}", "domain": "movie"} for i in range(ROWS // 2)]
    return Prompts.repeated(rows, samples=2)


@pytest.fixture
def written() -> Callable[..., Samples]:
    """Samples of a policy: `written(name, weights (R, K), judge scores by dimension (R, K))`."""

    def make(name: str, weights: Floats, judge: dict[str, Floats]) -> Samples:
        rows, experts = weights.shape
        return Samples(
            policy=name,
            weights=weights,
            completions=[[f"expert {k} writes row {row}" for row in range(rows)] for k in range(experts)],
            finished=[[row % 2 == 0 for row in range(rows)] for _ in range(experts)],
            logps=np.full((rows, experts, experts), -10.0) - 5 * (1 - np.eye(experts)),
            reference_logps=np.full((rows, experts), -12.0),
            scores={"judge": judge, "annotator": {name: scores + 0.1 for name, scores in judge.items()}},
        )

    return make
