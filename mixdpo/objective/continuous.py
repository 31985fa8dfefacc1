"""A latent that is a vector of tastes: the Gaussian bound on an annotator's preferences, and integrals over N(0, I).

z ∈ R^d belongs to the annotator, with prior N(0, I) and posterior q(u) = N(μ_u, diag σ_u²). Points z_1 … z_S with
log-weights stand in for an integral over z. They take the place of experts in every function of this package: with
the prior's points, `annotator_log_likelihood` and `leave_one_out_weights` are the continuous model's too.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# above this a grid over the axes needs more points than random draws do
GRID_DIMENSIONS = 2


def gaussian_kl(mean: Tensor, log_scale: Tensor) -> Tensor:
    """KL(N(μ, diag σ²) ‖ N(0, I)): (..., d) and (..., d) → (...), nats.

    >>> import torch
    >>> gaussian_kl(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1))
    tensor([0., 2.])
    """
    return 0.5 * (mean.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(dim=-1)


def gaussian_draws(mean: Tensor, log_scale: Tensor, noise: Tensor) -> Tensor:
    """z = μ + σ ε, so that gradients reach μ and σ.

    Args:
        mean, log_scale: (rows, d).
        noise: (points, d), the same for all rows, or (rows, points, d); from N(0, I).

    Returns:
        (rows, points, d).
    """
    return mean[:, None] + log_scale.exp()[:, None] * noise


def annotator_gaussian_elbo(
    logits: Tensor, log_points: Tensor, member: Tensor, kl: Tensor, share: Tensor | float = 1.0, kl_weight: float = 1.0
) -> Tensor:
    """E_q[Σ_{i∈u} log σ(m_i(z))] − weight · share · KL(q(u) ‖ N(0, I)) ≤ log p(all preferences of u) at weight 1.

    Args:
        logits: (pairs, points), margins at draws from each pair's annotator's q.
        log_points: (points,), log-weights of the draws; normalised.
        member: (pairs,), the row of each pair's annotator.
        kl: (annotators,), nats.
        share: (annotators,), the part of an annotator's pairs that is here. An annotator whose pairs lie in several
            batches pays the divergence once, in parts.
        kl_weight: below 1 early in training, against a posterior that collapses to the prior (mixtures-fail, row 4).

    Returns:
        (annotators,), nats.
    """
    expected = (F.logsigmoid(logits) * log_points.exp()).sum(dim=-1)
    return expected.new_zeros(len(kl)).index_add(0, member, expected) - kl_weight * share * kl


def normal_points(dimensions: int, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points and log-weights with Σ_s w_s f(z_s) ≈ E f(z) under N(0, I).

    In one and two dimensions these are Gauss–Hermite nodes: exact for polynomials, nothing is drawn. In more, random
    draws with their mirror images; the logarithm of an average over them is then too low on average.

    Args:
        dimensions: d.
        points: at most so many.

    Returns:
        (points, d) and (points,), float64; the weights sum to 1.
    """
    if dimensions > GRID_DIMENSIONS:
        half = torch.randn(max(1, points // 2), dimensions, generator=generator, dtype=torch.float64)
        nodes = torch.cat([half, -half])
        return nodes, torch.full((len(nodes),), -math.log(len(nodes)), dtype=torch.float64)
    # the small excess guards powers such as 64 ** 0.5 against rounding down
    axis = max(1, int(points ** (1 / dimensions) + 1e-9))
    place, weight = np.polynomial.hermite_e.hermegauss(axis)
    nodes = torch.cartesian_prod(*[torch.from_numpy(place)] * dimensions).view(-1, dimensions)
    weights = torch.cartesian_prod(*[torch.from_numpy(weight)] * dimensions).view(-1, dimensions)
    return nodes, torch.log_softmax(weights.log().sum(dim=-1), dim=-1)
