from __future__ import annotations

import pytest
import torch

from mixdpo.errors import DataError
from mixdpo.policy.context import Context, hashed_unit

PROMPTS = ["a film", "a book", "a song"]


def context(**changes: object) -> Context:
    return Context(PROMPTS, lambda: torch.zeros(3, 2), **changes)  # type: ignore[arg-type]


def test_columns_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="annotators: 2 values for 3 prompts; give one a prompt"):
        context(annotators=["ann", "bob"])
    with pytest.raises(DataError, match="metadata column age: 4 values for 3 prompts; give one a prompt"):
        context(metadata={"age": [1, 2, 3, 4]})


def test_one_name_is_no_column_though_it_has_as_many_letters_as_there_are_prompts() -> None:
    with pytest.raises(DataError, match="annotators is one text, 'ann'; give a list with one a prompt"):
        context(annotators="ann")


def test_a_column_that_was_not_given_is_empty() -> None:
    assert list(context(metadata={"age": [1, 2, 3]}).column("age")) == [1, 2, 3]
    assert list(context().column("age")) == [None, None, None]


def test_strangers_are_drawn_by_the_pairs_ids_alone() -> None:
    ids = [f"pair-{number}" for number in range(2000)]
    rows = Context(ids, lambda: torch.zeros(2000, 1), ["ann"] * 2000)
    hidden = [name is None for name in rows.with_strangers(ids, 0.25).annotators or ()]
    assert sum(hidden) / 2000 == pytest.approx(0.25, abs=0.03)
    reverse = [name is None for name in rows.with_strangers(ids[::-1], 0.25).annotators or ()]
    assert reverse == hidden[::-1]
    more = [name is None for name in rows.with_strangers(ids, 0.5).annotators or ()]
    assert all(after or not before for before, after in zip(hidden, more, strict=True))
    assert rows.with_strangers(ids, 0.0).annotators == rows.annotators
    assert context().with_strangers(ids[:3], 0.5).annotators is None


def test_a_hashed_number_is_exact_in_float32_and_below_one() -> None:
    numbers = [hashed_unit(str(number), "salt") for number in range(1000)]
    assert torch.tensor(numbers).double().tolist() == numbers
    assert 0 <= min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1
    assert hashed_unit("a film", "expert") == 0.2908257842063904  # the same on every machine, today and later
    assert hashed_unit("a film", "other") != hashed_unit("a film", "expert")
