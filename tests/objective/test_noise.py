"""Labels that are flipped with rate ε: a likelihood of its own, and the bound that others call label smoothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.objective import (
    bradley_terry,
    expert_loss,
    marginal_log_likelihood,
    noisy_margins,
    responsibilities,
    update_epsilon,
)

close = torch.testing.assert_close
RATES = st.floats(1e-3, 0.45)


def test_the_examples_in_the_docstrings_run() -> None:
    import doctest

    assert doctest.testmod(bradley_terry).failed == 0


@given(data=st.data(), epsilon=RATES)
def test_the_noisy_margin_has_the_noisy_likelihood(batches: Any, data: st.DataObject, epsilon: float) -> None:
    margins = data.draw(batches).margins
    wanted = (1 - epsilon) * torch.sigmoid(margins) + epsilon * torch.sigmoid(-margins)
    close(torch.sigmoid(noisy_margins(margins, epsilon)), wanted)
    close(torch.sigmoid(noisy_margins(-margins, epsilon)), 1 - wanted)


@given(epsilon=RATES)
def test_no_label_is_evidence_without_bound(epsilon: float) -> None:
    margins = torch.tensor([-1e4, -3.0, 0.0, 3.0, 1e4], dtype=torch.float64)
    noisy = noisy_margins(margins, epsilon)
    bound = math.log((1 - epsilon) / epsilon)
    assert torch.isfinite(noisy).all()
    assert noisy.abs().max() <= bound + 1e-9
    assert (noisy.diff() > 0).all()
    close(noisy[[0, -1]], torch.tensor([-bound, bound], dtype=torch.float64))


def test_without_noise_nothing_changes() -> None:
    margins = torch.linspace(-30, 30, 41, dtype=torch.float64)
    close(noisy_margins(margins, 0.0), margins)


@given(data=st.data(), epsilon=RATES)
def test_smoothing_is_below_the_likelihood_of_flipped_labels(batches: Any, data: st.DataObject, epsilon: float) -> None:
    margins, log_weights, _ = data.draw(batches)
    q = responsibilities(noisy_margins(margins, epsilon), log_weights)
    # losses: the bound lies above
    assert expert_loss(margins, q, epsilon) >= expert_loss(noisy_margins(margins, epsilon), q) - 1e-12


@given(data=st.data(), epsilon=RATES)
def test_one_expert_with_smoothing_is_conservative_dpo(batches: Any, data: st.DataObject, epsilon: float) -> None:
    margins = data.draw(batches).margins[:, :1]
    cdpo = -(1 - epsilon) * F.logsigmoid(margins) - epsilon * F.logsigmoid(-margins)
    close(expert_loss(margins, torch.ones_like(margins), epsilon), cdpo.mean())


@given(data=st.data(), epsilon=RATES)
def test_a_learned_rate_climbs_the_likelihood(batches: Any, data: st.DataObject, epsilon: float) -> None:
    margins, log_weights, _ = data.draw(batches)
    old = torch.tensor(epsilon, dtype=torch.float64)
    q = responsibilities(noisy_margins(margins, old), log_weights)
    new = update_epsilon(margins, q, old, smoothing=0.0)
    before, after = (marginal_log_likelihood(noisy_margins(margins, rate), log_weights).sum() for rate in (old, new))
    if 1e-4 < new < 0.45:  # not held back by the range
        assert after >= before - 1e-9


def test_the_learned_rate_finds_the_share_of_flipped_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    margins = 6 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    truth = torch.rand(margins.shape, generator=generator, dtype=torch.float64) < torch.sigmoid(margins)
    flipped = torch.rand(margins.shape, generator=generator, dtype=torch.float64) < 0.15
    labelled = torch.where(truth ^ flipped, margins, -margins)
    rate = torch.tensor(0.02, dtype=torch.float64)
    for _ in range(60):
        rate = update_epsilon(labelled, torch.ones_like(labelled), rate, smoothing=0.5)
    assert rate == pytest.approx(0.15, abs=0.015)


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_gradients_through_the_noise_are_finite(epsilon: float) -> None:
    margins = torch.tensor([-1e4, -1.0, 0.0, 1e4], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.logsigmoid(noisy_margins(margins, epsilon)).sum(), margins)
    assert torch.isfinite(gradient).all()
    assert (gradient >= 0).all()
