"""Sparse activation: only the strongest experts of a prompt take part (method.md §4)."""

from __future__ import annotations

import torch
from torch import Tensor

from mixdpo.errors import ConfigError


def top_experts(log_weights: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Keep the `top` likeliest experts of each row and renormalise; of equal ones the first are kept.

    Args:
        log_weights: (..., experts), normalised in log space. Responsibilities do as well as weights.
        top: how many to keep, 1 to K; K leaves the rows as they are.

    Returns:
        (..., experts), nats: normalised over those kept, −inf elsewhere; and (...,) the mass that was dropped.

    Raises:
        ConfigError: `top` is below 1 or above K.

    >>> import torch
    >>> kept, dropped = top_experts(torch.tensor([[0.6, 0.1, 0.3]]).log(), 2)
    >>> kept.exp(), dropped
    (tensor([[0.6667, 0.0000, 0.3333]]), tensor([0.1000]))
    """
    experts = log_weights.shape[-1]
    if not 1 <= top <= experts:
        raise ConfigError(f"top is {top}, but there are {experts} experts; give 1 to {experts}")
    if top == experts:
        return log_weights, log_weights.new_zeros(log_weights.shape[:-1])
    # stable, so that ties do not depend on the machine
    strongest = log_weights.argsort(dim=-1, descending=True, stable=True)[..., :top]
    kept = torch.zeros_like(log_weights, dtype=torch.bool).scatter(-1, strongest, value=True)
    dropped = torch.where(kept, 0.0, log_weights.exp()).sum(dim=-1)
    return torch.log_softmax(log_weights.masked_fill(~kept, float("-inf")), dim=-1), dropped
