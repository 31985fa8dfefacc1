"""The M-step's loss: experts, gate and regularisers, with responsibilities held fixed (method.md §3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mixdpo.objective import balance_loss, expert_loss, gate_loss, update_epsilon, update_global_weights
from mixdpo.policy.weighting import PriorWeights
from mixdpo.training.estep import Assigned
from mixdpo.training.mixture import Forward, Mixture
from mixdpo.training.schedule import anneal

if TYPE_CHECKING:
    from mixdpo.config.policy import Policy
    from mixdpo.config.weights import GateWeights

Log = dict[str, float]

# An expert with less responsibility for a pair takes no part in its backward pass: exact zeros cost nothing there. The
# gradient in a margin moves by less than this, the loss of a pair by less than this times its experts' loss.
NEGLIGIBLE = 1e-6


def m_step_loss(
    result: Forward, logits: Tensor, assigned: Assigned, mixture: Mixture, policy: Policy, step: int
) -> tuple[Tensor, Log]:
    """What the optimiser minimises at this step, and its terms.

    Args:
        result: of `forward`, with gradient.
        logits: (pairs, experts): `mixture.likelihood.logits(result.margins)`.
    """
    noise = policy.noise
    negligible = assigned.pairs < NEGLIGIBLE
    q = torch.where(negligible, 0.0, assigned.pairs)
    if noise is not None and noise.kind == "smoothed":
        loss = expert_loss(result.margins, q, mixture.likelihood.epsilon)
    else:
        loss = expert_loss(logits, q)
    log = {"expert_loss": loss.item(), "skipped": negligible.float().mean().item()}
    if policy.nll:
        unlikely = -(q * result.chosen_logps).sum(dim=-1) / result.chosen_tokens
        log["nll"] = unlikely.mean().item()
        loss = loss + policy.nll * unlikely.mean()
    if policy.weights.kind == "gate":
        loss = loss + _gate_terms(result.log_weights, assigned.beliefs, policy.weights, step, log)
    log["loss"] = loss.item()
    return loss, log


def _gate_terms(log_weights: Tensor, beliefs: Tensor, weights: GateWeights, step: int, log: Log) -> Tensor | float:
    routing = gate_loss(log_weights, beliefs, weights.entropy)
    log["gate_loss"] = routing.item()
    if weights.frozen or step < weights.rest_steps:
        return 0.0
    if weights.balance is not None:
        unequal = balance_loss(log_weights)
        log["balance_loss"] = unequal.item()
        routing = routing + anneal(step, weights.balance.strength, 0.0, weights.balance.steps, "linear") * unequal
    return routing


@torch.no_grad()
def closed_form_updates(result: Forward, assigned: Assigned, mixture: Mixture, policy: Policy) -> None:
    """What has a closed form needs no gradient: the prior for all, and the rate of flipped labels."""
    if policy.weights.kind == "global":
        prior = mixture.weighting
        assert isinstance(prior, PriorWeights)
        prior.log_weights = update_global_weights(
            prior.log_weights, assigned.units, policy.weights.alpha, policy.weights.smoothing
        )
    if policy.noise is not None and policy.noise.kind == "learned":
        likelihood = mixture.likelihood
        likelihood.epsilon = update_epsilon(
            result.margins.float(), assigned.pairs, likelihood.epsilon, policy.noise.smoothing
        )
