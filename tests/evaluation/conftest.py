"""Samples and held-out pairs whose right answers are known in advance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mixdpo.config.data import Style
from mixdpo.data.schema import PREFERENCES
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.measure import Opinion, evaluation_figures
from mixdpo.evaluation.preference import Judgement
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.statistics import Bootstrap, Floats

ROWS = 12
STYLES = ("sentiment", "grammar", "informativeness")
BOOTSTRAP = Bootstrap(200, 0)


@pytest.fixture(scope="session")
def prompts() -> Prompts:
    rows = [{"prompt_id": f"p{i}", "prompt": f"prompt {i}", "domain": "movie"} for i in range(ROWS // 2)]
    return Prompts.repeated(rows, samples=2)


@pytest.fixture(scope="session")
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


def preferences(annotators: int = 15, each: int = 6, styled: bool = True) -> pa.Table:
    rows = [
        {
            **{name: f"{name} {u} {i}" for name in ("prompt_id", "prompt", "chosen", "rejected")},
            "pair_id": f"{u:03d}-{i}",
            "chosen_finished": True,
            "rejected_finished": False,
            "annotator": f"a{u:03d}",
            "style": STYLES[u % 3] if styled else None,
            "domain": ("movie", "book")[u % 2],
            "split": "test" if u < annotators - 1 else "train",
            "metadata": "{}",
        }
        for u in range(annotators)
        for i in range(each)
    ]
    return pa.Table.from_pylist(rows, schema=PREFERENCES)


@pytest.fixture(scope="session")
def pairs() -> HeldOut:
    """14 annotators with 6 test pairs each (one more belongs to train), styles in turn."""
    return HeldOut.of(preferences())


def specialists(pairs: HeldOut, strength: float) -> Judgement:
    """Expert k sure of style k's pairs and right half of the time elsewhere."""
    margins = strength * np.random.default_rng(0).choice([-1.0, 1.0], size=(len(pairs), 3))
    own = [STYLES.index(str(style)) for style in pairs.styles]
    margins[np.arange(len(pairs)), own] = strength
    return Judgement(margins, np.full_like(margins, -np.log(3)), "annotator")


@pytest.fixture(scope="session")
def evaluated(pairs: HeldOut, prompts: Prompts, written: Callable[..., Samples]) -> dict[str, Any]:
    """Everything about a run where mix serves every style: expert k lifts dimension k, dpo lifts all a little."""
    generator = np.random.default_rng(0)
    base = {name: 0.2 + 0.1 * generator.random((ROWS, 1)) for name in STYLES}
    lift = {name: 0.4 * np.eye(3)[k] for k, name in enumerate(STYLES)}
    samples = {
        "sft": written("sft", np.ones((ROWS, 1)), base),
        "dpo": written("dpo", np.ones((ROWS, 1)), {name: base[name] + 0.1 for name in STYLES}),
        "mix": written("mix", np.full((ROWS, 3), 1 / 3), {name: base[name] + lift[name] for name in STYLES}),
    }
    undecided = Judgement(0.3 * generator.normal(size=(len(pairs), 1)) + 0.2, np.zeros((len(pairs), 1)), "annotator")
    opinions = {"dpo": Opinion.of(undecided, pairs), "mix": Opinion.of(specialists(pairs, 3.0), pairs)}
    styles = {name: Style(weights={name: 1.0}, share=1.0, domains=None) for name in STYLES}
    return {
        "samples": samples,
        "opinions": opinions,
        "metrics": evaluation_figures(samples, opinions, pairs, prompts, styles, BOOTSTRAP),
        "unknown": evaluation_figures(
            samples, opinions, HeldOut.of(preferences(styled=False)), prompts, None, BOOTSTRAP
        ),
    }
