from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.objective import (
    balance_loss,
    expert_loss,
    gate_loss,
    marginal_log_likelihood,
    responsibilities,
    update_global_weights,
)

close = torch.testing.assert_close


@given(data=st.data())
def test_one_expert_is_dpo_in_value_and_gradient(batches: Any, data: st.DataObject) -> None:
    margins = data.draw(batches).margins[:, :1].requires_grad_()
    q = responsibilities(margins, torch.zeros(1, dtype=margins.dtype))
    ours, dpo = expert_loss(margins, q), -F.logsigmoid(margins).mean()
    close(ours, dpo)
    close(torch.autograd.grad(ours, margins), torch.autograd.grad(dpo, margins))


@given(data=st.data())
def test_the_experts_loss_descends_the_marginal_likelihood(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    margins.requires_grad_()
    # no gradient passes through the E-step, though q was computed from the margins
    loss = expert_loss(margins, responsibilities(margins, log_weights))
    close(
        torch.autograd.grad(loss, margins),
        torch.autograd.grad(-marginal_log_likelihood(margins, log_weights).mean(), margins),
    )


@given(data=st.data())
def test_the_gates_loss_is_a_divergence_that_pulls_it_to_q(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    q = responsibilities(margins, log_weights)
    logits = log_weights.expand_as(margins).clone().requires_grad_()
    loss = gate_loss(logits.log_softmax(dim=-1), q, entropy=0.0)
    assert loss >= -1e-12
    (gradient,) = torch.autograd.grad(loss, logits)
    close(gradient, (logits.detach().softmax(dim=-1) - q) / len(q))
    close(gate_loss(q.log(), q, entropy=0.0), torch.zeros((), dtype=q.dtype))


def test_the_gates_loss_is_finite_at_one_hot_responsibilities() -> None:
    weights = torch.tensor([[0.25, 0.75]])
    close(gate_loss(weights.log(), torch.tensor([[1.0, 0.0]]), entropy=0.0), torch.tensor(4.0).log())


def test_the_entropy_term_rewards_spread_weights() -> None:
    logits = torch.tensor([[2.0, -1.0]], requires_grad=True)
    q = logits.detach().softmax(dim=-1)
    (gradient,) = torch.autograd.grad(gate_loss(logits.log_softmax(dim=-1), q, entropy=0.5), logits)
    assert gradient[0, 0] > 0 > gradient[0, 1]


@given(data=st.data(), alpha=st.floats(1, 5), smoothing=st.floats(0, 0.95))
def test_global_weights_follow_closed_form(batches: Any, data: st.DataObject, alpha: float, smoothing: float) -> None:
    margins, log_weights, _ = data.draw(batches)
    q = responsibilities(margins, log_weights)
    rows, experts = q.shape
    old = torch.full((experts,), 1 / experts, dtype=q.dtype)
    closed = (q.sum(dim=0) + alpha - 1) / (rows + experts * (alpha - 1))
    close(
        update_global_weights(old.log(), q, alpha, smoothing).exp(),
        smoothing * old + (1 - smoothing) * closed,
    )


@given(data=st.data())
def test_without_prior_and_smoothing_it_is_the_exact_m_step(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    log_weights = log_weights[0] if log_weights.dim() == 2 else log_weights
    before = marginal_log_likelihood(margins, log_weights).sum()
    q = responsibilities(margins, log_weights)
    after = marginal_log_likelihood(margins, update_global_weights(log_weights, q, alpha=1.0, smoothing=0.0)).sum()
    assert after >= before - 1e-12


def test_the_prior_keeps_an_unused_expert_alive() -> None:
    q = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    old = torch.full((2,), 0.5).log()
    assert update_global_weights(old, q, alpha=2.0, smoothing=0.0)[1].exp().item() > 0.05
    assert torch.isfinite(update_global_weights(old, q, alpha=1.0, smoothing=0.0)).all()


@given(data=st.data())
def test_the_balance_is_zero_where_experts_get_equal_shares_and_log_k_at_most(
    batches: Any, data: st.DataObject
) -> None:
    _, log_weights, _ = data.draw(batches)
    rows = log_weights if log_weights.dim() == 2 else log_weights[None]
    loss, experts = balance_loss(rows), rows.shape[-1]
    assert -1e-12 <= loss <= math.log(experts) + 1e-12
    # every prompt may go to one expert, as long as each expert gets as many
    turned = torch.stack([rows[0].roll(shift) for shift in range(experts)])
    close(balance_loss(turned), torch.zeros((), dtype=rows.dtype))
