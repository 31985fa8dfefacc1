"""The M-step: what the experts and the mixing weights minimise, responsibilities held fixed (method.md §3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# a learned flip rate stays in here: at 0 it could never rise, at ½ labels would say nothing
EPSILON_RANGE = (1e-4, 0.45)


def expert_loss(margins: Tensor, responsibilities: Tensor, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """−mean_i Σ_k sg[q_ik] log σ(m_ik), nats. With one expert this is the loss of DPO.

    Args:
        margins: (pairs, experts), with gradient.
        responsibilities: (pairs, experts); detached here, so that this is EM and not the gradient of the log-sum.
        label_smoothing: ε of (1−ε) log σ(m) + ε log σ(−m), which by Jensen's inequality is below the log-likelihood
            of labels that are flipped with rate ε (method.md §6). With one expert this is the loss of cDPO.
    """
    agrees = F.logsigmoid(margins)
    value = agrees + label_smoothing * (F.logsigmoid(-margins) - agrees)
    expected: Tensor = responsibilities.detach() * value
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


def balance_loss(log_weights: Tensor) -> Tensor:
    """log K − H(mean_x w(x)), nats: 0 where the experts get equal shares of the prompts (mixtures-fail, row 2).

    Args:
        log_weights: (pairs, experts) of the gate, with gradient, normalised.
    """
    mean = log_weights.exp().mean(dim=0)
    spread: Tensor = torch.special.entr(mean).sum()
    return math.log(len(mean)) - spread


def update_epsilon(margins: Tensor, responsibilities: Tensor, epsilon: Tensor, smoothing: float) -> Tensor:
    """Closed-form M-step of the flip rate: the mean posterior probability that a label was flipped.

    Args:
        margins: (pairs, experts), without noise.
        responsibilities: (pairs, experts).
        epsilon: (), the old rate, above 0.
        smoothing: share of the old rate that stays, in [0, 1).

    Returns:
        (), in (0, ½).
    """
    odds = torch.logit(epsilon) - margins
    flipped = (responsibilities * torch.sigmoid(odds)).sum(dim=-1).mean()
    return (smoothing * epsilon + (1 - smoothing) * flipped).clamp(EPSILON_RANGE[0], EPSILON_RANGE[1])
