"""The mixture of Bradley–Terry: E-step, ELBO and marginal likelihood (method.md §2 and §3, paper eq. 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_joint(margins: Tensor, log_weights: Tensor) -> Tensor:
    """log w_k + log σ(m_k): the log-probability of expert k and of this preference together.

    Args:
        margins: (pairs, experts).
        log_weights: (experts,) or (pairs, experts), normalised in log space.

    Returns:
        (pairs, experts), nats.
    """
    return log_weights + F.logsigmoid(margins)


def marginal_log_likelihood(margins: Tensor, log_weights: Tensor) -> Tensor:
    """log p(y⁺ ≻ y⁻ | x) = log Σ_k w_k σ(m_k).

    >>> import torch
    >>> marginal_log_likelihood(torch.zeros(1, 2), torch.tensor([0.5, 0.5]).log()).exp()
    tensor([0.5000])

    Returns:
        (pairs,), nats.
    """
    return torch.logsumexp(log_joint(margins, log_weights), dim=-1)


def responsibilities(
    margins: Tensor, log_weights: Tensor, groups: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """The exact posterior over experts, q_k ∝ (w_k σ(m_k))^(1/temperature).

    With `groups` the latent belongs to the annotator (method.md §6): all pairs of one group share a row, to which
    the prior enters once (the mean of the group's log-weights, renormalised) and every pair adds its log σ(m).

    Args:
        margins: (pairs, experts).
        log_weights: (experts,) or (pairs, experts), normalised in log space.
        groups: (pairs,) integer ids of annotators, or None for one latent a pair.
        temperature: above 1 flattens the posterior, 1 is exact.

    Returns:
        (pairs, experts); rows are ≥ 0 and sum to 1.

    >>> import torch
    >>> responsibilities(torch.tensor([[0.0, 0.0]]), torch.tensor([0.25, 0.75]).log())
    tensor([[0.2500, 0.7500]])
    """
    if groups is None:
        return torch.softmax(log_joint(margins, log_weights) / temperature, dim=-1)
    joint, member = group_log_joint(margins, log_weights, groups)
    return torch.softmax(joint / temperature, dim=-1)[member]


def group_log_joint(margins: Tensor, log_weights: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """log w_k(u) + Σ_{i∈u} log σ(m_ik) for each annotator u.

    Returns:
        (annotators, experts) in nats, annotators in ascending order of id; and (pairs,) the row of each pair.
    """
    unique, member = torch.unique(groups, return_inverse=True)
    evidence = group_evidence(margins, member, len(unique))
    return group_prior(log_weights.to(evidence.dtype).expand_as(margins), member, len(unique)) + evidence, member


def group_evidence(margins: Tensor, member: Tensor, groups: int) -> Tensor:
    """Σ_{i∈u} log σ(m_ik): (groups, experts), nats. `member` (pairs,) is the row of each pair."""
    likelihood = F.logsigmoid(margins)
    return likelihood.new_zeros(groups, margins.shape[-1]).index_add(0, member, likelihood)


def group_prior(log_weights: Tensor, member: Tensor, groups: int) -> Tensor:
    """log w_k(u), the mean of log w_k(x_i, u) over the group's pairs, renormalised: (groups, experts), nats.

    Args:
        log_weights: (pairs, experts).
        member: (pairs,) the row of each pair.
    """
    total = log_weights.new_zeros(groups, log_weights.shape[-1]).index_add(0, member, log_weights)
    pairs = torch.bincount(member, minlength=groups).to(log_weights.dtype)
    return torch.log_softmax(total / pairs[:, None], dim=-1)


def elbo(margins: Tensor, log_weights: Tensor, responsibilities: Tensor) -> Tensor:
    """Σ_k q_k [log σ(m_k) + log w_k − log q_k] ≤ log p, tight where q is the posterior (method.md §2).

    Returns:
        (pairs,), nats.
    """
    # entr(q) = −q log q is 0 at q = 0; a joint of −inf under q = 0 counts as 0 too
    expected = torch.where(responsibilities > 0, responsibilities * log_joint(margins, log_weights), 0.0)
    entropy: Tensor = torch.special.entr(responsibilities)
    return (expected + entropy).sum(dim=-1)
