from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.rewards.batching import BATCH_COST, LARGE_BATCH_COST, budgeted_batches, pad, shuffled_batches

LENGTHS = st.lists(st.integers(1, 50), max_size=60)


@given(LENGTHS, st.integers(1, 200))
def test_budget_holds_and_each_place_comes_once(lengths, budget):
    batches = budgeted_batches(lengths, budget)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= budget


@given(st.lists(st.integers(1, 500), max_size=200), st.booleans())
def test_a_batch_is_padded_by_no_more_than_another_batch_would_cost(lengths, large):
    for batch in budgeted_batches(lengths, 10**9, large=large):
        widths = [lengths[place] for place in batch]
        assert max(widths) * len(widths) - sum(widths) <= (LARGE_BATCH_COST if large else BATCH_COST["cpu"])


def test_many_lengths_need_few_tokens_of_padding():
    lengths = [5 + place % 400 for place in range(8000)]
    batches = budgeted_batches(lengths, 16384)
    padded = sum(len(batch) * max(lengths[place] for place in batch) for batch in batches)
    assert padded < 1.01 * sum(lengths)


@given(LENGTHS, st.integers(1, 8), st.integers(0, 9))
def test_an_epoch_has_each_place_once_and_depends_on_the_generator_alone(lengths, batch, seed):
    batches = shuffled_batches(lengths, batch, torch.Generator().manual_seed(seed))
    assert sorted(place for places in batches for place in places) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch)
    assert batches == shuffled_batches(lengths, batch, torch.Generator().manual_seed(seed))


def test_padding_is_on_the_right():
    ids, mask = pad([[5, 6, 7], [8]], 0, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.long
