from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from mixdpo.evaluation.cost import expert_cost, mixture_cost
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.statistics import Bootstrap

BOOTSTRAP = Bootstrap(200, 0)


def test_a_policy_that_never_moved_costs_nothing(written: Callable[..., Samples], prompts: Prompts) -> None:
    still = written("sft", np.ones((12, 1)), {})
    still = replace(still, reference_logps=still.logps[:, 0])
    assert expert_cost(still, 0, prompts, BOOTSTRAP)["kl"]["mean"] == 0.0
    assert mixture_cost(still, prompts, BOOTSTRAP)["kl"]["mean"] == 0.0


def test_cost_of_one_expert_in_figures(written: Callable[..., Samples], prompts: Prompts) -> None:
    cost = expert_cost(written("dpo", np.ones((12, 1)), {}), 0, prompts, BOOTSTRAP)
    assert cost["kl"]["mean"] == pytest.approx(2.0)
    assert cost["perplexity"] == pytest.approx(np.exp(12 / 5))  # "expert 0 writes row 3": five words
    assert cost["finished"] == 0.5


def test_a_mixture_strays_less_than_its_experts(written: Callable[..., Samples]) -> None:
    """KL is convex; and both estimates come to the exact sums over a small space of completions."""
    generator = np.random.default_rng(0)
    weights, rows = np.array([0.4, 0.6]), 20_000
    log_experts = log_softmax(2 * generator.normal(size=(6, 2)), axis=0)  # completions, experts
    log_reference = log_softmax(generator.normal(size=6))
    drawn = np.stack([generator.choice(6, size=rows, p=np.exp(log_experts[:, k])) for k in range(2)], axis=1)
    each = replace(
        written("mix", np.tile(weights, (rows, 1)), {}),
        logps=log_experts[drawn],
        reference_logps=log_reference[drawn],
    )
    many = Prompts([f"p{row}" for row in range(rows)], [""] * rows, [""] * rows, samples=1)
    cost = mixture_cost(each, many, BOOTSTRAP)
    log_mixture = np.log(np.exp(log_experts) @ weights)
    exact = float((np.exp(log_mixture) * (log_mixture - log_reference)).sum())
    charged = float((np.exp(log_experts) * (log_experts - log_reference[:, None]) @ weights).sum())
    assert cost["kl"]["mean"] == pytest.approx(exact, abs=0.03)
    assert cost["expert_kl"]["mean"] == pytest.approx(charged, abs=0.03)
    assert cost["kl"]["mean"] < cost["expert_kl"]["mean"]


def test_equal_experts_cost_the_same_mixed_or_not(written: Callable[..., Samples], prompts: Prompts) -> None:
    each = written("mix", np.tile([0.4, 0.6], (12, 1)), {})
    equal = replace(each, logps=np.full((12, 2, 2), -10.0))
    cost = mixture_cost(equal, prompts, BOOTSTRAP)
    assert cost["kl"]["mean"] == pytest.approx(cost["expert_kl"]["mean"]) == pytest.approx(2.0)
