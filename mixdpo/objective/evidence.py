"""The latent that belongs to an annotator: evidence adds up over all that one person said (method.md §6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mixdpo.objective.mixture import group_log_joint


def annotator_log_likelihood(margins: Tensor, log_weights: Tensor, groups: Tensor) -> Tensor:
    """log p(all preferences of u) = log Σ_k w_k(u) Π_{i∈u} σ(m_ik).

    Args:
        margins: (pairs, experts).
        log_weights: (experts,) or (pairs, experts), normalised in log space.
        groups: (pairs,) integer ids of annotators.

    Returns:
        (annotators,), nats, in ascending order of id.
    """
    joint, _ = group_log_joint(margins, log_weights, groups)
    return torch.logsumexp(joint, dim=-1)


def annotator_elbo(margins: Tensor, log_weights: Tensor, groups: Tensor, responsibilities: Tensor) -> Tensor:
    """The bound on `annotator_log_likelihood` at given responsibilities.

    Args:
        responsibilities: (pairs, experts), equal for all pairs of an annotator.

    Returns:
        (annotators,), nats, in ascending order of id.
    """
    joint, member = group_log_joint(margins, log_weights, groups)
    q = torch.zeros_like(joint).index_copy(0, member, responsibilities.to(joint.dtype))
    entropy: Tensor = torch.special.entr(q)
    return (torch.where(q > 0, q * joint, 0.0) + entropy).sum(dim=-1)


def leave_one_out_weights(margins: Tensor, log_weights: Tensor, groups: Tensor) -> Tensor:
    """log q_k of each pair's annotator given all of that annotator's *other* pairs: what predicts a held-out pair.

    An annotator with a single pair is left with the prior.

    Returns:
        (pairs, experts), nats, rows normalised.
    """
    joint, member = group_log_joint(margins, log_weights, groups)
    return torch.log_softmax(joint[member] - F.logsigmoid(margins), dim=-1)
