"""What a step logs (method.md §3.5); likelihoods are nats a pair, entropies in units of log K."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixdpo.objective import annotator_elbo, annotator_log_likelihood, elbo, marginal_log_likelihood
from mixdpo.training.estep import Assigned
from mixdpo.training.mixture import Forward


@torch.no_grad()
def step_figures(result: Forward, logits: Tensor, assigned: Assigned, groups: Tensor | None) -> dict[str, float]:
    """Figures of one batch.

    Args:
        logits: (pairs, experts), margins after label noise.
        groups: (pairs,) annotator codes where the latent is theirs, None where each pair has its own.
    """
    log_weights, chosen, q = result.log_weights, result.chosen_logps, assigned.pairs
    pairs, experts = logits.shape
    if groups is None:
        marginal = marginal_log_likelihood(logits, log_weights).mean()
        bound = elbo(logits, log_weights, q).mean()
    else:
        marginal = annotator_log_likelihood(logits, log_weights, groups).sum() / pairs
        bound = annotator_elbo(logits, log_weights, groups, q).sum() / pairs
    unit = math.log(experts) if experts > 1 else 1.0
    log = {
        "train_marginal": marginal.item(),
        "elbo": bound.item(),
        "bound_gap": (marginal - bound).item(),
        "entropy_q": torch.special.entr(q).sum(dim=-1).mean().item() / unit,
        "entropy_w": torch.special.entr(log_weights.exp()).sum(dim=-1).mean().item() / unit,
        # how far the experts disagree about a pair: 0 for ever where nothing breaks the symmetry
        "spread": result.margins.std(dim=-1, correction=0).mean().item(),
        "chosen_logp": (q * chosen).sum(dim=-1).mean().item(),
        "chosen_change": (q * result.chosen_change()).sum(dim=-1).mean().item(),
    }
    weight = q.sum(dim=0).clamp_min(1e-9)
    for expert in range(experts):
        log[f"usage_{expert}"] = q[:, expert].mean().item()
        log[f"margin_{expert}"] = ((q[:, expert] * result.margins[:, expert]).sum() / weight[expert]).item()
        log[f"accuracy_{expert}"] = ((q[:, expert] * (result.margins[:, expert] > 0)).sum() / weight[expert]).item()
    return log
