from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.objective import (
    annotator_elbo,
    annotator_log_likelihood,
    leave_one_out_weights,
    marginal_log_likelihood,
    responsibilities,
)

close = torch.testing.assert_close


@given(data=st.data())
def test_the_likelihood_sums_over_the_experts_each_annotator_may_have(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, groups = data.draw(batches)
    rows = log_weights.expand_as(margins)
    wanted = []
    for group in sorted(groups.unique().tolist()):
        mine = groups == group
        prior = rows[mine].mean(dim=0).softmax(dim=-1)
        wanted.append((prior * margins[mine].sigmoid().prod(dim=0)).sum().log())
    close(annotator_log_likelihood(margins, log_weights, groups), torch.stack(wanted))


def test_outcomes_of_all_an_annotators_pairs_sum_to_one() -> None:
    margins = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_weights, one = torch.tensor([0.3, 0.7], dtype=torch.float64).log(), torch.zeros(3, dtype=torch.long)
    outcomes = itertools.product([1.0, -1.0], repeat=3)
    total = sum(
        annotator_log_likelihood(margins * torch.tensor(signs, dtype=torch.float64)[:, None], log_weights, one).exp()
        for signs in outcomes
    )
    close(total, torch.ones(1, dtype=torch.float64))


@given(data=st.data())
def test_single_pairs_are_pairs(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    likelihood = annotator_log_likelihood(margins, log_weights, torch.arange(len(margins)))
    close(likelihood, marginal_log_likelihood(margins, log_weights))


@given(data=st.data())
def test_the_bound_lies_below_and_is_tight_at_the_posterior(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, groups = data.draw(batches)
    likelihood = annotator_log_likelihood(margins, log_weights, groups)
    posterior = responsibilities(margins, log_weights, groups)
    close(annotator_elbo(margins, log_weights, groups, posterior), likelihood)
    for temperature in (2.0, 20.0):
        q = responsibilities(margins, log_weights, groups, temperature)
        assert (annotator_elbo(margins, log_weights, groups, q) <= likelihood + 1e-12).all()


@given(data=st.data())
def test_at_the_posterior_the_bounds_gradient_is_the_likelihoods(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, groups = data.draw(batches)
    margins.requires_grad_()
    q = responsibilities(margins, log_weights, groups).detach()
    (ours,) = torch.autograd.grad(annotator_elbo(margins, log_weights, groups, q).sum(), margins)
    (exact,) = torch.autograd.grad(annotator_log_likelihood(margins, log_weights, groups).sum(), margins)
    close(ours, exact)
    # which is the M-step's: each pair pulls on each expert by its annotator's responsibility
    close(ours, q * torch.sigmoid(-margins.detach()))


@given(data=st.data())
def test_leaving_a_pair_out_equals_computing_without_it(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, groups = data.draw(batches)
    rows = log_weights.expand_as(margins)
    found = leave_one_out_weights(margins, log_weights, groups)
    for pair in range(len(margins)):
        mine = groups == groups[pair]
        others = mine & (torch.arange(len(margins)) != pair)
        # the prompts are known, only the answer is held out: the prior is the mean over all of them
        joint = rows[mine].mean(dim=0).log_softmax(dim=-1) + F.logsigmoid(margins[others]).sum(dim=0)
        close(found[pair], joint.log_softmax(dim=-1))


@given(data=st.data())
def test_a_single_pair_is_left_with_the_prior(batches: Any, data: st.DataObject) -> None:
    margins, log_weights, _ = data.draw(batches)
    found = leave_one_out_weights(margins, log_weights, torch.arange(len(margins)))
    close(found, log_weights.expand_as(margins))
