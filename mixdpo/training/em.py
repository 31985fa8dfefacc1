"""One step of stochastic variational EM: forward, E-step, the M-step's losses, what to log (method.md §3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixdpo.objective import (
    annotator_elbo,
    annotator_log_likelihood,
    elbo,
    expert_loss,
    gate_loss,
    marginal_log_likelihood,
    preference_margins,
    responsibilities,
)
from mixdpo.policy.experts import Experts
from mixdpo.policy.tokens import pad
from mixdpo.policy.weighting import Gate, Weighting
from mixdpo.training.pairs import PreferencePairs


class Mixture(nn.Module):
    """What is trained: the experts and the weights that mix them."""

    def __init__(self, experts: Experts, weighting: Weighting) -> None:
        super().__init__()
        self.experts = experts
        self.weighting = weighting


class Forward(NamedTuple):
    """A batch under all experts."""

    margins: Tensor  # (pairs, experts), nats
    log_weights: Tensor  # (pairs, experts), normalised
    chosen_logps: Tensor  # (pairs, experts), nats


class Step(NamedTuple):
    loss: Tensor
    responsibilities: Tensor  # (pairs, experts)
    log: dict[str, float]


def forward(
    mixture: Mixture, pairs: PreferencePairs, places: Sequence[int], beta: float, tile_tokens: int, device: torch.device
) -> Forward:
    """Margins and log-weights of some pairs. The chosen and rejected rows run as one batch."""
    logps = mixture.experts(pad(pairs.rows(places), device), tile_tokens)
    chosen, rejected = logps.chunk(2)
    index = torch.as_tensor(places)
    margins = preference_margins(
        chosen,
        rejected,
        pairs.chosen_reference[index].to(device),
        pairs.rejected_reference[index].to(device),
        beta,
    )
    features = pairs.features[index].to(device) if mixture.weighting.needs_features else None
    return Forward(margins, mixture.weighting(features, len(places)), chosen)


def em_step(
    result: Forward,
    groups: Tensor | None,
    weighting: Weighting,
    gate_entropy: float | None,
    temperature: float,
    given: Tensor | None,
) -> Step:
    """E-step and the M-step's losses.

    Args:
        result: of `forward`, with gradient.
        groups: (pairs,) annotator codes where the latent is theirs, None where each pair has its own.
        gate_entropy: λ_ent of a gate that learns; None lets it rest.
        temperature: of the E-step, at least 1.
        given: (pairs, experts) responsibilities to use instead of the posterior (symmetry breaking), or None.
    """
    margins, log_weights, chosen = result
    with torch.no_grad():
        q = given
        if q is None:
            q = responsibilities(margins.float(), log_weights, groups, temperature)
    loss = expert_loss(margins, q)
    log = {"expert_loss": loss.item()}
    if isinstance(weighting, Gate):
        routing = gate_loss(log_weights, q, gate_entropy or 0.0)
        log["gate_loss"] = routing.item()
        if gate_entropy is not None:
            loss = loss + routing
    log["loss"] = loss.item()
    return Step(loss, q, log | _describe(margins.detach(), log_weights.detach(), chosen.detach(), q, groups))


def _describe(
    margins: Tensor, log_weights: Tensor, chosen: Tensor, q: Tensor, groups: Tensor | None
) -> dict[str, float]:
    """What method.md §3.5 asks to be logged; likelihoods are nats a pair."""
    pairs, experts = margins.shape
    if groups is None:
        marginal = marginal_log_likelihood(margins, log_weights).mean()
        bound = elbo(margins, log_weights, q).mean()
    else:
        marginal = annotator_log_likelihood(margins, log_weights, groups).sum() / pairs
        bound = annotator_elbo(margins, log_weights, groups, q).sum() / pairs
    unit = math.log(experts) if experts > 1 else 1.0
    log = {
        "train_marginal": marginal.item(),
        "elbo": bound.item(),
        "bound_gap": (marginal - bound).item(),
        "entropy_q": torch.special.entr(q).sum(dim=-1).mean().item() / unit,
        "entropy_w": -(log_weights.exp() * log_weights).sum(dim=-1).mean().item() / unit,
        # how far the experts disagree about a pair: 0 for ever where nothing breaks the symmetry
        "spread": margins.std(dim=-1, correction=0).mean().item(),
        "chosen_logp": (q * chosen).sum(dim=-1).mean().item(),
    }
    weight = q.sum(dim=0).clamp_min(1e-9)
    for expert in range(experts):
        log[f"usage_{expert}"] = q[:, expert].mean().item()
        log[f"margin_{expert}"] = ((q[:, expert] * margins[:, expert]).sum() / weight[expert]).item()
        log[f"accuracy_{expert}"] = ((q[:, expert] * (margins[:, expert] > 0)).sum() / weight[expert]).item()
    return log
