from __future__ import annotations

import pytest
import torch

from mixdpo.policy.choosing import NUCLEUS, choose, inverse_cdf, nucleus

LAST = 1.0 - 2**-53  # the largest number that torch.rand gives


def peaked(rows: int, vocabulary: int, scale: float = 2.0) -> torch.Tensor:
    """(rows, vocabulary) logits."""
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(vocabulary))


def uniforms(rows: int) -> torch.Tensor:
    drawn = torch.rand(rows, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn[0], drawn[-1] = 0.0, LAST
    return drawn


@pytest.mark.parametrize("vocabulary", [1, 5, 255, 256, 257, 1000, 1024, 5001])
def test_a_draw_is_where_the_distribution_function_passes_its_number(vocabulary: int) -> None:
    probs = peaked(400, vocabulary).softmax(dim=-1)
    numbers = uniforms(400)
    cumulative = probs.double().cumsum(dim=-1)
    cumulative /= cumulative[:, -1:].clone()
    drawn = inverse_cdf(probs, numbers)
    before = torch.where(drawn > 0, cumulative.gather(-1, (drawn - 1).clamp_min(0)[:, None])[:, 0], 0.0)
    assert (numbers >= before - 1e-6).all()
    assert (numbers <= cumulative.gather(-1, drawn[:, None])[:, 0] + 1e-6).all()


@pytest.mark.parametrize("vocabulary", [5, 300, 1100])
def test_no_number_draws_what_has_no_probability(vocabulary: int) -> None:
    probs = torch.zeros(1, vocabulary)
    some = [1, vocabulary // 2, vocabulary - 2]
    probs[0, some] = torch.tensor([0.3, 1e-30, 0.7])
    numbers = torch.tensor([0.0, 0.29999, 0.30001, LAST], dtype=torch.float64)
    assert inverse_cdf(probs.expand(4, -1), numbers).tolist() == [some[0], some[0], some[2], some[2]]


def test_rows_need_not_be_normalised() -> None:
    probs = peaked(50, 700).softmax(dim=-1)
    scaled = probs * torch.logspace(-3, 3, 50)[:, None]
    assert torch.equal(inverse_cdf(scaled, uniforms(50)), inverse_cdf(probs, uniforms(50)))


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("scale", [0.01, 3.0])  # flat, so that most tokens are inside, and steep
def test_a_nucleus_is_the_least_set_with_that_mass(top_p: float, scale: float) -> None:
    probs = peaked(20, 3 * NUCLEUS, scale).softmax(dim=-1)
    kept, ids = nucleus(probs, top_p)
    assert (ids.diff(dim=-1) > 0).all()
    whole = torch.zeros_like(probs).scatter(-1, ids, kept)
    before = torch.stack([torch.where(probs > p[:, None], probs, 0.0).sum(dim=-1) for p in probs.T], dim=-1)
    sure = (before - top_p).abs() > 1e-5  # not for rounding to decide
    assert torch.equal(whole[sure], torch.where(before < top_p, probs, 0.0)[sure])
    assert (whole.argmax(dim=-1) == probs.argmax(dim=-1)).all()


def test_a_draw_from_a_nucleus_is_a_draw_from_what_is_kept() -> None:
    logits, numbers = peaked(200, 900), uniforms(200)
    kept, ids = nucleus(logits.softmax(dim=-1), 0.8)
    whole = torch.zeros_like(logits).scatter(-1, ids, kept)
    assert torch.equal(choose(logits, numbers, 1.0, 0.8), inverse_cdf(whole, numbers))


def test_temperature_divides_the_scores_and_none_takes_the_likeliest() -> None:
    logits, numbers = peaked(100, 600), uniforms(100)
    assert torch.equal(choose(logits, numbers, 0.0, 1.0), logits.argmax(dim=-1))
    assert torch.equal(choose(logits + 7.0, numbers, 0.5, 1.0), choose(2.0 * logits, numbers, 1.0, 1.0))
    assert torch.equal(choose(logits, numbers, 1e-4, 1.0), logits.argmax(dim=-1))
