from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdpo.training.batching import epoch_batches
from mixdpo.training.pairs import annotator_codes

laws = settings(max_examples=60, deadline=None, derandomize=True, database=None)
annotators = st.lists(st.integers(0, 5), min_size=1, max_size=30).map(torch.tensor)


@given(annotators=annotators, size=st.integers(1, 9), together=st.booleans())
@laws
def test_every_pair_comes_once_an_epoch_in_batches_of_the_size(
    annotators: torch.Tensor, size: int, together: bool
) -> None:
    batches = epoch_batches(annotators, size, seed=0, epoch=1, together=together)
    assert sorted(place for batch in batches for place in batch) == list(range(len(annotators)))
    assert all(1 <= len(batch) <= size for batch in batches)


@given(annotators=annotators, size=st.integers(1, 9))
@laws
def test_an_annotator_is_in_one_batch_unless_too_large_and_never_twice_in_one(
    annotators: torch.Tensor, size: int
) -> None:
    batches = epoch_batches(annotators, size, seed=0, epoch=0, together=True)
    for annotator in annotators.unique().tolist():
        mine = (annotators == annotator).nonzero()[:, 0].tolist()
        parts = [len(set(mine) & set(batch)) for batch in batches if set(mine) & set(batch)]
        assert len(parts) == -(-len(mine) // size)
        assert sorted(parts, reverse=True)[:-1] == [size] * (len(parts) - 1)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    annotators = torch.arange(40) // 4
    first = epoch_batches(annotators, 8, seed=3, epoch=2, together=True)
    torch.manual_seed(99)
    assert epoch_batches(annotators, 8, seed=3, epoch=2, together=True) == first
    assert epoch_batches(annotators, 8, seed=4, epoch=2, together=True) != first
    assert epoch_batches(annotators, 8, seed=3, epoch=3, together=True) != first


def test_codes_follow_first_appearance() -> None:
    assert annotator_codes(["u7", "u2", "u7", "u9"]).tolist() == [0, 1, 0, 2]
