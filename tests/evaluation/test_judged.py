from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mixdpo.evaluation.judged import expert_rewards, reward_table
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.statistics import Bootstrap

BOOTSTRAP = Bootstrap(200, 0)


@pytest.fixture
def sft(written: Callable[..., Samples]) -> Samples:
    return written("sft", np.ones((12, 1)), {"sentiment": np.random.default_rng(0).random((12, 1)) / 2})


def test_the_mixtures_reward_is_the_expectation_over_experts(
    sft: Samples, written: Callable[..., Samples], prompts: Prompts
) -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(2), size=12)
    scores = np.random.default_rng(2).random((12, 2)) / 2
    mix = written("mix", weights, {"sentiment": scores})
    table = reward_table(mix, {"sft": sft, "mix": mix}, prompts, BOOTSTRAP)
    assert table["judge"]["sentiment"]["mean"] == pytest.approx((weights * scores).sum(axis=1).mean())
    assert table["annotator"]["sentiment"]["mean"] == pytest.approx(table["judge"]["sentiment"]["mean"] + 0.1)
    assert table["judge"]["sentiment"]["clusters"] == 6  # prompts, of two samples each
    assert "minus_mix" not in table
    alone = expert_rewards(mix, 1, prompts, BOOTSTRAP)["judge"]["sentiment"]
    assert alone["mean"] == pytest.approx(scores[:, 1].mean())


def test_a_policy_that_writes_the_same_differs_by_exactly_nothing(
    sft: Samples, written: Callable[..., Samples], prompts: Prompts
) -> None:
    twin = written("dpo", np.ones((12, 1)), dict(sft.scores["judge"]))
    gap = reward_table(twin, {"sft": sft}, prompts, BOOTSTRAP)["minus_sft"]["judge"]["sentiment"]
    assert (gap["mean"], gap["low"], gap["high"]) == (0.0, 0.0, 0.0)


def test_equal_experts_are_one_expert_whatever_the_weights(
    sft: Samples, written: Callable[..., Samples], prompts: Prompts
) -> None:
    weights = np.random.default_rng(3).dirichlet(np.ones(3), size=12)
    copies = written("mix", weights, {"sentiment": np.repeat(sft.scores["judge"]["sentiment"], 3, axis=1)})
    gap = reward_table(copies, {"sft": sft}, prompts, BOOTSTRAP)["minus_sft"]["judge"]["sentiment"]
    assert (gap["low"], gap["high"]) == pytest.approx((0.0, 0.0), abs=1e-12)
