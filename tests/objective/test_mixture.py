from __future__ import annotations

import doctest
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.objective import elbo, log_joint, marginal_log_likelihood, mixture, responsibilities

close = torch.testing.assert_close


def test_the_examples_in_the_docstrings_run() -> None:
    failed, tried = doctest.testmod(mixture)
    assert failed == 0
    assert tried >= 4


@given(data=st.data())
def test_responsibilities_are_a_distribution(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, groups = data.draw(batches)
    for q in (responsibilities(margins, log_weights), responsibilities(margins, log_weights, groups, temperature=2.0)):
        assert (q >= 0).all()
        close(q.sum(dim=-1), torch.ones(len(q), dtype=q.dtype))


@given(data=st.data())
def test_they_are_the_weights_where_all_experts_say_the_same(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    q = responsibilities(margins[:, :1].expand_as(margins), log_weights)
    close(q, log_weights.exp().expand_as(q))


@given(data=st.data(), constant=st.floats(-50, 50))
def test_they_do_not_see_a_constant_added_to_the_log_joints(batches: Any, data: st.DataObject, constant: float) -> None:
    margins, log_weights, groups = data.draw(batches)
    close(responsibilities(margins, log_weights + constant), responsibilities(margins, log_weights))
    close(responsibilities(margins, log_weights + constant, groups), responsibilities(margins, log_weights, groups))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("groups", [None, torch.tensor([0, 0, 1])])
def test_huge_margins_stay_finite(dtype: torch.dtype, groups: torch.Tensor | None) -> None:
    margins = torch.tensor([[1e4, -1e4], [-1e4, -1e4], [1e4, 1e4]], dtype=dtype, requires_grad=True)
    log_weights = torch.tensor([0.3, 0.7], dtype=dtype).log()
    q = responsibilities(margins, log_weights, groups).detach()
    close(q.sum(dim=-1), torch.ones(3, dtype=dtype), atol=1e-6, rtol=0)
    bound, marginal = elbo(margins, log_weights, q), marginal_log_likelihood(margins, log_weights)
    (gradient,) = torch.autograd.grad(bound.sum() + marginal.sum(), margins)
    for values in (q, bound, marginal, gradient):
        assert torch.isfinite(values).all()


@given(data=st.data())
def test_the_gap_below_the_marginal_is_the_divergence_from_the_posterior(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    other = torch.randn(margins.shape, generator=torch.Generator().manual_seed(1), dtype=margins.dtype).softmax(dim=-1)
    marginal, posterior = marginal_log_likelihood(margins, log_weights), responsibilities(margins, log_weights)
    gap = marginal - elbo(margins, log_weights, other)
    assert (gap >= -1e-12).all()
    close(gap, (other * (other.log() - posterior.log())).sum(dim=-1))
    close(elbo(margins, log_weights, posterior), marginal)


def test_the_bound_is_finite_at_one_hot_responsibilities() -> None:
    margins, log_weights = torch.tensor([[1.0, -1.0]]), torch.tensor([0.0, float("-inf")])
    close(elbo(margins, log_weights, torch.tensor([[1.0, 0.0]])), F.logsigmoid(margins[:, 0]))


@given(data=st.data())
def test_at_the_posterior_the_bounds_gradient_is_the_marginals(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    margins.requires_grad_()
    log_weights.requires_grad_()
    q = responsibilities(margins, log_weights).detach()
    ours = torch.autograd.grad(elbo(margins, log_weights, q).sum(), (margins, log_weights))
    exact = torch.autograd.grad(marginal_log_likelihood(margins, log_weights).sum(), (margins, log_weights))
    for gradient, wanted in zip(ours, exact, strict=True):
        close(gradient, wanted)


def test_the_marginals_gradient_is_its_finite_difference() -> None:
    margins = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    log_weights = torch.tensor([0.2, 0.8], dtype=torch.float64).log().requires_grad_()
    assert torch.autograd.gradcheck(marginal_log_likelihood, (margins, log_weights))


@given(data=st.data(), seed=st.integers(0, 99))
def test_permuting_experts_permutes_responsibilities_alone(batches: Any, data: st.DataObject, seed: int) -> None:
    margins, log_weights, groups = data.draw(batches)
    order = torch.randperm(margins.shape[-1], generator=torch.Generator().manual_seed(seed))
    moved, moved_weights = margins[:, order], log_weights[..., order]
    close(responsibilities(moved, moved_weights, groups), responsibilities(margins, log_weights, groups)[:, order])
    close(marginal_log_likelihood(moved, moved_weights), marginal_log_likelihood(margins, log_weights))


@given(data=st.data())
def test_identical_experts_are_dpo_whatever_the_weights(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    same = margins[:, :1].expand_as(margins)
    close(marginal_log_likelihood(same, log_weights), F.logsigmoid(margins[:, 0]))


@given(data=st.data())
def test_an_annotator_with_one_pair_is_a_pair(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    alone = torch.arange(len(margins)).flip(0)
    close(responsibilities(margins, log_weights, alone), responsibilities(margins, log_weights))


@given(data=st.data(), seed=st.integers(0, 99))
def test_the_order_of_pairs_does_not_matter(batches: Any, data: st.DataObject, seed: int) -> None:
    margins, log_weights, groups = data.draw(batches)
    log_weights = log_weights.expand_as(margins)
    order = torch.randperm(len(margins), generator=torch.Generator().manual_seed(seed))
    q = responsibilities(margins, log_weights, groups)
    close(responsibilities(margins[order], log_weights[order], groups[order]), q[order])


@given(data=st.data())
def test_an_annotators_pairs_share_a_row_to_which_the_prior_enters_once(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, groups = data.draw(batches)
    q = responsibilities(margins, log_weights, groups)
    rows = log_weights.expand_as(margins)
    for group in groups.unique():
        mine = groups == group
        joint = rows[mine].mean(dim=0).log_softmax(dim=-1) + F.logsigmoid(margins[mine]).sum(dim=0)
        close(q[mine], joint.softmax(dim=-1).expand(int(mine.sum()), -1))


@given(data=st.data())
def test_temperature_1_is_exact_and_higher_is_flatter(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, groups = data.draw(batches)
    exact = responsibilities(margins, log_weights, groups)
    close(responsibilities(margins, log_weights, groups, temperature=1.0), exact)
    entropies = [
        torch.special.entr(responsibilities(margins, log_weights, groups, temperature)).sum(dim=-1)
        for temperature in (1.0, 2.0, 10.0, 1e9)
    ]
    for colder, warmer in itertools.pairwise(entropies):
        assert (warmer >= colder - 1e-9).all()
    flat = torch.full_like(exact, 1 / exact.shape[-1])
    close(responsibilities(margins, log_weights, groups, temperature=1e9), flat, atol=1e-6, rtol=0)


def test_log_joint_is_the_formula() -> None:
    joint = log_joint(torch.tensor([[0.0, 2.0]]), torch.tensor([0.25, 0.75]).log())
    close(joint.exp(), torch.tensor([[0.25 * 0.5, 0.75 / (1 + torch.tensor(-2.0).exp())]]))
