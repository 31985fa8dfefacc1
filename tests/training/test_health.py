from __future__ import annotations

import math

import pytest
import torch

from mixdpo.objective import responsibilities
from mixdpo.training.health import Finding, Signs, diagnose


def findings(margins: torch.Tensor, q: torch.Tensor, prior: torch.Tensor, **shown: float) -> list[Finding]:
    well = {"known": -0.4, "stranger": -0.6, "chosen_change": -0.05}
    return diagnose(Signs(margins, q, prior, **(well | shown)))


def names(margins: torch.Tensor, q: torch.Tensor, prior: torch.Tensor, **shown: float) -> list[str]:
    return [finding.name for finding in findings(margins, q, prior, **shown)]


def uniform(pairs: int, experts: int) -> torch.Tensor:
    return torch.full((pairs, experts), 1 / experts)


def mixture(spread: float, level: float, pairs_each: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Margins of about ±level that differ by `spread` between three experts, and what follows from them."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.where(torch.rand(240, 1, generator=generator) < 0.5, -1.0, 1.0)
    apart = torch.randn(240, 3, generator=generator)
    apart = (apart - apart.mean(dim=-1, keepdim=True)) / apart.std(dim=-1, correction=0).mean()
    margins = level * sign + spread * apart
    log_weights = uniform(240, 3).log()
    return margins, responsibilities(margins, log_weights, torch.arange(240) // pairs_each), log_weights.exp()


def test_experts_that_differ_and_pairs_that_tell_are_healthy() -> None:
    assert names(*mixture(spread=2.0, level=1.0, pairs_each=8)) == []


def test_one_expert_is_always_healthy() -> None:
    assert names(torch.zeros(4, 1), torch.ones(4, 1), torch.ones(4, 1)) == []


def test_equal_experts_are_named() -> None:
    assert names(*mixture(spread=0.0, level=1.9)) == ["identical-experts"]


@pytest.mark.parametrize("pairs_each", [1, 8])
def test_experts_that_differ_by_little_beside_their_margins_have_collapsed(pairs_each: int) -> None:
    margins, q, prior = mixture(spread=0.05, level=1.9, pairs_each=pairs_each)
    assert margins.std(dim=-1, correction=0).mean() == pytest.approx(0.05)
    assert torch.special.entr(q).sum(dim=-1).mean() / math.log(3) > 0.98
    (finding,) = findings(margins, q, prior)
    assert finding.name == "posterior-collapse"
    assert finding.message.startswith("responsibilities stay at the prior: the pairs resolve ")
    assert "(margins differ by 0.05 nats between experts); use `latent: annotator` with more" in finding.message


def test_what_counts_is_the_evidence_beyond_the_prior() -> None:
    margins, _, _ = mixture(spread=1.0, level=1.0)
    decided = torch.tensor([0.9, 0.05, 0.05]).expand(240, -1)
    assert "posterior-collapse" in names(margins, decided, decided)
    turned = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]).repeat(80, 1)
    assert names(margins, turned, uniform(240, 3)) == []


def test_a_gate_that_knows_all_leaves_nothing_to_resolve() -> None:
    sure = torch.eye(3).repeat(80, 1)
    assert names(mixture(spread=1.0, level=1.0)[0], sure, sure) == []


def test_an_expert_nobody_needs_is_named() -> None:
    q = torch.tensor([[0.99, 0.005, 0.005], [0.005, 0.99, 0.005]]).repeat(10, 1)
    margins = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    (finding,) = findings(margins, q, uniform(20, 3))
    assert finding.name == "dead-expert"
    assert finding.message.startswith("expert 2 explains 0.5% of the pairs; set `reseed` of this policy, use fewer ")


def test_an_expert_that_takes_all_is_named_once_and_not_its_victims() -> None:
    q = torch.tensor([[0.98, 0.01, 0.01]]).repeat(20, 1)
    margins = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    (finding,) = findings(margins, q, uniform(20, 3))
    assert finding.name == "expert-collapse"
    assert "expert 0 explains 98.0% of the pairs" in finding.message
    assert "weights of kind global with alpha 2" in finding.message


def test_responsibilities_that_mislead_came_too_early() -> None:
    margins, q, prior = mixture(spread=2.0, level=1.0, pairs_each=8)
    (finding,) = findings(margins, q, prior, known=-0.66, stranger=-0.60)
    assert finding.name == "early-sharpening"
    assert "start training.tempering above 1" in finding.message
    # the same where responsibilities are still open: nothing has sharpened
    assert "early-sharpening" not in names(margins, uniform(240, 3), prior, known=-0.66, stranger=-0.60)


def test_forgetting_what_was_chosen_is_named_with_one_expert_too() -> None:
    (finding,) = findings(torch.zeros(4, 1), torch.ones(4, 1), torch.ones(4, 1), chosen_change=-0.8)
    assert finding.name == "likelihood-displacement"
    assert "0.80 nats a token less likely than the reference" in finding.message
    assert "set `nll`" in finding.message


def test_worse_than_a_coin_is_named() -> None:
    (finding,) = findings(torch.zeros(4, 1), torch.ones(4, 1), torch.ones(4, 1), known=-0.73)
    assert finding.name == "worse-than-chance"
    assert "-0.730 nats a pair, below a coin's -0.693" in finding.message
