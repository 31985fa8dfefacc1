"""The M-step: what the experts and the mixing weights minimise, responsibilities held fixed (method.md §3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def expert_loss(margins: Tensor, responsibilities: Tensor) -> Tensor:
    """−mean_i Σ_k sg[q_ik] log σ(m_ik), nats. With one expert this is the loss of DPO.

    Args:
        margins: (pairs, experts), with gradient.
        responsibilities: (pairs, experts); detached here, so that this is EM and not the gradient of the log-sum.
    """
    expected: Tensor = responsibilities.detach() * F.logsigmoid(margins)
    return -expected.sum(dim=-1).mean()


def gate_loss(log_weights: Tensor, responsibilities: Tensor, entropy: float) -> Tensor:
    """mean KL(sg[q] ‖ w(x)) − λ_ent · mean H(w(x)), nats.

    Args:
        log_weights: (pairs, experts) of the gate, with gradient, normalised.
        responsibilities: (pairs, experts), detached here.
        entropy: λ_ent ≥ 0.
    """
    q = responsibilities.detach()
    divergence = (torch.special.xlogy(q, q) - q * log_weights).sum(dim=-1)
    spread = -(log_weights.exp() * log_weights).sum(dim=-1)
    loss: Tensor = (divergence - entropy * spread).mean()
    return loss


def update_global_weights(log_weights: Tensor, responsibilities: Tensor, alpha: float, smoothing: float) -> Tensor:
    """Closed-form M-step of one prior for all: w ← (Σ q + α − 1) / (N + K (α − 1)), mixed with the old weights.

    Args:
        log_weights: (experts,), the old ones.
        responsibilities: (rows, experts): one row for each draw of the latent (pairs, or annotators).
        alpha: of the Dirichlet prior, ≥ 1.
        smoothing: share of the old weights that stays, in [0, 1).

    Returns:
        (experts,), normalised, nats.
    """
    rows, experts = responsibilities.shape
    update = (responsibilities.sum(dim=0) + alpha - 1) / (rows + experts * (alpha - 1))
    mixed = smoothing * log_weights.exp() + (1 - smoothing) * update
    return mixed.clamp_min(torch.finfo(mixed.dtype).tiny).log().log_softmax(dim=-1)
