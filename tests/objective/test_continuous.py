from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mixdpo.objective import annotator_log_likelihood, responsibilities
from mixdpo.objective.continuous import annotator_gaussian_elbo, gaussian_draws, gaussian_kl, normal_points


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_the_divergence_is_that_of_torch_distributions() -> None:
    mean, log_scale = random(5, 3), random(5, 3, seed=1)
    q = torch.distributions.Normal(mean, log_scale.exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(q, prior).sum(dim=-1)
    torch.testing.assert_close(gaussian_kl(mean, log_scale), expected)
    assert gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_is_below_the_marginal_and_a_better_posterior_comes_closer(seed: int) -> None:
    """m_i(z) = a_i z + b_i: three annotators, z ∈ R."""
    slope, offset, member = 2 * random(12, seed=seed), random(12, seed=seed + 50), torch.arange(12) % 3
    z, log_points = normal_points(1, 80, generator())
    marginal = annotator_log_likelihood(slope[:, None] * z[:, 0] + offset[:, None], log_points, member)

    def bound(mean: Tensor, log_scale: Tensor) -> Tensor:
        own = gaussian_draws(mean, log_scale, z)[member, :, 0]
        logits = slope[:, None] * own + offset[:, None]
        return annotator_gaussian_elbo(logits, log_points, member, gaussian_kl(mean, log_scale))

    for trial in range(5):
        assert (bound(random(3, 1, seed=trial), random(3, 1, seed=trial + 9)) <= marginal + 1e-9).all()
    mean, log_scale = torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    parameters = [mean.requires_grad_(), log_scale.requires_grad_()]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    start = bound(*parameters)
    for _ in range(200):
        optimizer.zero_grad()
        (-bound(*parameters).sum()).backward()
        optimizer.step()
    best = bound(*parameters)
    assert (best <= marginal + 1e-9).all()
    assert (best >= start - 1e-9).all()
    # the exact posterior is not Gaussian, but nearly so
    assert (marginal - best).max() < 0.05


def test_gradients_reach_mean_and_scale_through_the_draws() -> None:
    mean, log_scale = random(2, 3).requires_grad_(), random(2, 3, seed=1).requires_grad_()
    z = gaussian_draws(mean, log_scale, random(2, 4, 3, seed=2))
    assert z.shape == (2, 4, 3)
    z.square().sum().backward()
    assert mean.grad is not None
    assert log_scale.grad is not None
    assert (mean.grad != 0).all()
    assert (log_scale.grad != 0).all()


def test_an_annotator_in_several_batches_pays_the_divergence_once() -> None:
    logits, member = random(8, 5), torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    log_points, kl = torch.full((5,), -math.log(5), dtype=torch.float64), torch.tensor([0.7, 0.2], dtype=torch.float64)
    whole = annotator_gaussian_elbo(logits, log_points, member, kl)
    parts = torch.zeros(2, dtype=torch.float64)
    for places in ([0, 3, 4], [1, 2, 5, 6, 7]):
        unique, own = torch.unique(member[places], return_inverse=True)
        share = torch.bincount(own) / torch.tensor([3.0, 5.0])
        parts[unique] += annotator_gaussian_elbo(logits[places], log_points, own, kl[unique], share)
    torch.testing.assert_close(parts, whole)
    # a weight of 0 leaves the likelihood, in between is in between
    likelihood = annotator_gaussian_elbo(logits, log_points, member, kl, kl_weight=0.0)
    torch.testing.assert_close(likelihood - 0.5 * kl, annotator_gaussian_elbo(logits, log_points, member, kl, 1.0, 0.5))


@pytest.mark.parametrize(("dimensions", "points", "expected"), [(1, 9, 9), (2, 64, 64), (2, 70, 64), (3, 4001, 4000)])
def test_points_integrate_over_the_standard_normal(dimensions: int, points: int, expected: int) -> None:
    z, log_points = normal_points(dimensions, points, generator())
    assert z.shape == (expected, dimensions)
    weight = log_points.exp()[:, None]
    assert weight.sum().item() == pytest.approx(1)
    torch.testing.assert_close((weight * z).sum(dim=0), torch.zeros(dimensions, dtype=z.dtype), atol=1e-9, rtol=0)
    close = 1e-9 if dimensions < 3 else 0.1
    torch.testing.assert_close(
        (weight * z.square()).sum(dim=0), torch.ones(dimensions, dtype=z.dtype), atol=close, rtol=0
    )


def test_points_in_the_place_of_experts_are_the_discrete_mixture() -> None:
    """With one-hot tastes as points the formulas of K experts are those of the continuous latent."""
    experts, pairs = 3, 10
    margins, member = random(pairs, experts), torch.arange(pairs) % 4
    basis = torch.eye(experts, dtype=torch.float64)  # z = e_k
    by_taste = torch.einsum("pk,sk->ps", margins, basis)
    log_weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    q = responsibilities(margins, log_weights, member)
    torch.testing.assert_close(responsibilities(by_taste, log_weights, member), q)
    # a posterior that is a point mass on e_k, its divergence aside, has expert k's likelihood
    for expert in range(experts):
        mass = torch.full((experts,), -math.inf, dtype=torch.float64)
        mass[expert] = 0.0
        bound = annotator_gaussian_elbo(by_taste, mass, member, torch.zeros(4, dtype=torch.float64))
        wanted = annotator_log_likelihood(margins[:, [expert]], torch.zeros(1, dtype=torch.float64), member)
        torch.testing.assert_close(bound, wanted)
