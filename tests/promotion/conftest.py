"""Standings whose differences are known, without a policy behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from mixdpo.config import Params, parse_params
from mixdpo.evaluation.standing import Standing, Terms
from mixdpo.evaluation.statistics import Floats

DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"
STYLES = ("grammar", "informativeness", "sentiment")
TERMS = Terms(prompts="p", pairs="q", judges=dict.fromkeys(STYLES, "j"), sampling={"seed": 0.0})


@pytest.fixture(scope="session")
def params() -> Params:
    return parse_params(yaml.safe_load(DEMO.read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def standing() -> Callable[..., Standing]:
    """standing({dimension: (R,) or (R, K) scores}): scale 1, two annotators of each style, expert k sure of style k."""

    def make(judged: dict[str, Floats], weights: Floats | None = None, terms: Terms = TERMS) -> Standing:
        scores = {name: each[:, None] if each.ndim == 1 else each for name, each in judged.items()}
        rows, experts = next(iter(scores.values())).shape
        styles = [style for style in STYLES for _ in range(4)]
        own = np.array([STYLES.index(style) for style in styles]) % experts
        return Standing(
            terms,
            dict.fromkeys(STYLES, 1.0),
            tuple(f"p{row}" for row in range(rows)),
            np.full((rows, experts), 1 / experts) if weights is None else weights,
            scores,
            tuple(styles),
            np.arange(len(styles)) // 2,
            np.where(np.arange(experts) == own[:, None], 9.0, -9.0),
        )

    return make
