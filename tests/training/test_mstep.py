from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mixdpo.objective import balance_loss, expert_loss, gate_loss
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.weighting import PriorWeights
from mixdpo.training.estep import Assigned
from mixdpo.training.mixture import Forward, Mixture
from mixdpo.training.mstep import closed_form_updates, m_step_loss

Make = Callable[..., Any]
GATE = {"kind": "gate", "hidden": 0, "entropy": 0.1, "rest_steps": 3, "learning_rate": 0.01}
PAIRS, EXPERTS = 12, 3


def random_step(seed: int = 0) -> tuple[Forward, Assigned]:
    generator = torch.Generator().manual_seed(seed)

    def rows() -> torch.Tensor:
        return torch.randn(PAIRS, EXPERTS, generator=generator)

    result = Forward(
        rows(), rows().log_softmax(dim=-1), rows() - 20, torch.full((PAIRS,), -20.0), torch.arange(4, 4 + PAIRS)
    )
    q = rows().softmax(dim=-1)
    return result, Assigned(q, rows().softmax(dim=-1), q, torch.arange(PAIRS), 0.0)


def mixture_of(epsilon: float = 0.0) -> Mixture:
    return Mixture(torch.nn.Identity(), PriorWeights.uniform(EXPERTS), Likelihood(0.1, epsilon=epsilon))  # type: ignore[arg-type]


def test_without_options_it_is_the_experts_loss(make_policy: Make) -> None:
    result, assigned = random_step()
    loss, log = m_step_loss(result, result.margins, assigned, mixture_of(), make_policy(EXPERTS), step=0)
    torch.testing.assert_close(loss, expert_loss(result.margins, assigned.pairs))
    assert log == {"expert_loss": loss.item(), "skipped": 0.0, "loss": loss.item()}


def test_an_expert_with_next_to_no_responsibility_is_skipped_and_the_loss_hardly_moves(make_policy: Make) -> None:
    result, assigned = random_step()
    result.margins.requires_grad_()
    q = torch.full_like(assigned.pairs, 1e-7)
    q[:, 0] = 1.0 - q[:, 1:].sum(dim=1)
    loss, log = m_step_loss(result, result.margins, assigned._replace(pairs=q), mixture_of(), make_policy(EXPERTS), 0)
    assert log["skipped"] == pytest.approx((EXPERTS - 1) / EXPERTS)
    torch.testing.assert_close(loss, expert_loss(result.margins, q), rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss, result.margins)
    assert gradient[:, 0].all()
    assert not gradient[:, 1:].any()


def test_noise_is_in_the_logits_and_smoothing_in_the_loss(make_policy: Make) -> None:
    result, assigned = random_step()
    mixture = mixture_of(epsilon=0.2)
    logits = mixture.likelihood.logits(result.margins)
    noisy, _ = m_step_loss(
        result, logits, assigned, mixture, make_policy(EXPERTS, noise={"kind": "fixed", "epsilon": 0.2}), 0
    )
    torch.testing.assert_close(noisy, expert_loss(logits, assigned.pairs))
    smoothed, _ = m_step_loss(
        result, logits, assigned, mixture, make_policy(EXPERTS, noise={"kind": "smoothed", "epsilon": 0.2}), 0
    )
    torch.testing.assert_close(smoothed, expert_loss(result.margins, assigned.pairs, 0.2))
    assert smoothed > noisy


def test_nll_is_that_of_the_chosen_a_token_under_those_responsible(make_policy: Make) -> None:
    result, assigned = random_step()
    plain, _ = m_step_loss(result, result.margins, assigned, mixture_of(), make_policy(EXPERTS), 0)
    loss, log = m_step_loss(result, result.margins, assigned, mixture_of(), make_policy(EXPERTS, nll=0.5), 0)
    wanted = sum(
        -assigned.pairs[pair, expert] * result.chosen_logps[pair, expert] / result.chosen_tokens[pair]
        for pair in range(PAIRS)
        for expert in range(EXPERTS)
    )
    assert log["nll"] == pytest.approx(float(wanted) / PAIRS, rel=1e-5)
    assert (loss - plain).item() == pytest.approx(0.5 * log["nll"], rel=1e-5)


class TestGate:
    def loss(self, make_policy: Make, step: int, **changes: Any) -> tuple[torch.Tensor, dict[str, float]]:
        result, assigned = random_step()
        policy = make_policy(EXPERTS, weights=GATE | changes)
        return m_step_loss(result, result.margins, assigned, mixture_of(), policy, step)

    def test_it_learns_the_beliefs_not_what_the_experts_are_given(self, make_policy: Make) -> None:
        result, assigned = random_step()
        loss, log = self.loss(make_policy, step=3)
        wanted = gate_loss(result.log_weights, assigned.beliefs, 0.1)
        assert log["gate_loss"] == pytest.approx(wanted.item())
        assert loss.item() == pytest.approx(log["expert_loss"] + wanted.item())

    @pytest.mark.parametrize(("step", "changes"), [(2, {}), (9, {"frozen": True})], ids=["resting", "frozen"])
    def test_a_gate_that_rests_or_is_frozen_costs_nothing(
        self, step: int, changes: dict[str, Any], make_policy: Make
    ) -> None:
        loss, log = self.loss(make_policy, step, **changes)
        assert loss.item() == log["expert_loss"]
        assert "gate_loss" in log

    def test_the_push_to_balance_falls_to_nothing(self, make_policy: Make) -> None:
        result, _ = random_step()
        unequal = balance_loss(result.log_weights).item()
        push = []
        for step in (4, 6, 8, 20):
            with_push, _ = self.loss(make_policy, step, balance={"strength": 2.0, "steps": 8})
            push.append((with_push - self.loss(make_policy, step)[0]).item())
        assert push == pytest.approx([1.0 * unequal, 0.5 * unequal, 0.0, 0.0], abs=1e-6)


def test_closed_forms_change_the_prior_and_the_rate_and_nothing_else(make_policy: Make) -> None:
    result, assigned = random_step()
    mixture = mixture_of(epsilon=0.2)
    closed_form_updates(result, assigned, mixture, make_policy(EXPERTS, noise={"kind": "fixed", "epsilon": 0.2}))
    assert mixture.likelihood.epsilon.item() == pytest.approx(0.2)
    torch.testing.assert_close(mixture.weighting.log_weights, torch.full((EXPERTS,), -math.log(EXPERTS)))
    learning = make_policy(
        EXPERTS,
        noise={"kind": "learned", "epsilon": 0.2, "smoothing": 0.0},
        weights={"kind": "global", "alpha": 1.0, "smoothing": 0.0},
    )
    closed_form_updates(result, assigned, mixture, learning)
    torch.testing.assert_close(mixture.weighting.log_weights.exp(), assigned.units.mean(dim=0))
    flipped = torch.sigmoid(math.log(0.2 / 0.8) - result.margins)
    assert mixture.likelihood.epsilon.item() == pytest.approx((assigned.pairs * flipped).sum(dim=-1).mean().item())
