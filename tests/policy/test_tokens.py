from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from mixdpo.errors import DataError
from mixdpo.policy.tokens import TokenRow, encode_prompts, encode_rows, length_sorted_batches, pad, refuse_longer


@pytest.fixture
def no_specials(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = bare.eos_token = None
    return bare


def test_prompts_start_with_bos_and_finished_completions_end_with_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    finished, cut = encode_rows(tokenizer, ["the cat", "the cat"], [" sat", " sat"], [True, False])
    assert finished.prompt == cut.prompt == encode_prompts(tokenizer, ["the cat"])[0]
    assert finished.prompt[0] == tokenizer.bos_token_id
    assert finished.completion == [*cut.completion, tokenizer.eos_token_id]
    assert tokenizer.decode(cut.prompt[1:] + cut.completion) == "the cat sat"
    assert encode_rows(tokenizer, ["the cat"], [" sat"]) == [finished]


def test_a_finished_completion_may_be_empty(tokenizer: PreTrainedTokenizerBase) -> None:
    (row,) = encode_rows(tokenizer, ["the cat"], [""], [True])
    assert row.completion == [tokenizer.eos_token_id]


def test_an_empty_completion_that_did_not_end_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError) as error:
        encode_rows(tokenizer, ["the cat", "a mat"], [" sat", ""], [False, False])
    assert str(error.value) == "completion 1 (of prompt 'a mat') is empty and did not end; drop the row"


def test_an_empty_prompt_needs_a_bos(tokenizer: PreTrainedTokenizerBase, no_specials: PreTrainedTokenizerBase) -> None:
    assert encode_prompts(tokenizer, [""]) == [[tokenizer.bos_token_id]]
    with pytest.raises(DataError) as error:
        encode_prompts(no_specials, ["a", ""])
    assert str(error.value) == "prompt 1 is empty and the tokenizer has no BOS token; give the prompt some text"


def test_unequal_numbers_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"^2 prompts but 1 completions; give one completion a prompt$"):
        encode_rows(tokenizer, ["a", "b"], ["c"])


def test_a_row_over_the_limit_is_refused_with_its_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    (row,) = encode_rows(tokenizer, ["the cat"], [" sat"], max_tokens=10)
    with pytest.raises(DataError, match=r"row 0 \(prompt 'the cat'\) has \d+ tokens, more than max_tokens 2; raise"):
        encode_rows(tokenizer, ["the cat"], [" sat"], max_tokens=2)
    refuse_longer([row], None)
    refuse_longer([row], len(row))
    with pytest.raises(DataError, match=f"row 0 has {len(row)} tokens but the model reads at most 3; shorten"):
        refuse_longer([row], 3)


rows = st.builds(
    TokenRow,
    prompt=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    completion=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)


@given(batch=st.lists(rows, min_size=1, max_size=6))
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_every_completion_token_is_predicted_from_the_place_before_it(batch: list[TokenRow]) -> None:
    padded = pad(batch)
    assert padded.input_ids[padded.row, padded.position + 1].tolist() == padded.target.tolist()
    assert padded.target.tolist() == [token for row in batch for token in row.completion]
    assert padded.layout.lengths == [len(row) for row in batch]
    assert (padded.input_ids != 0).sum() == sum(map(len, batch))


def test_a_prompt_of_several_rows_stands_in_the_line_once() -> None:
    layout = pad([TokenRow([1, 2], [3]), TokenRow([4], [5]), TokenRow([1, 2], [6, 7]), TokenRow([1, 2], [])]).layout
    assert layout.owners == [0, 1, 0, 3]
    assert layout.shared == [0, 0, 2, 0]
    assert layout.own == [3, 2, 2, 2]
    assert layout.places.tolist() == [[0, 1, 2, 0], [3, 4, 0, 0], [0, 1, 5, 6], [7, 8, 0, 0]]


@given(batch=st.lists(rows, min_size=1, max_size=6))
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_the_line_holds_every_token_of_every_row_where_the_layout_says(batch: list[TokenRow]) -> None:
    padded = pad(batch)
    line = padded.input_ids.flatten()[padded.layout.flat]
    assert len(line) == sum(padded.layout.own) <= sum(map(len, batch))
    for row, places in zip(batch, padded.layout.places, strict=True):
        assert line[places[: len(row)]].tolist() == row.prompt + row.completion


@given(lengths=st.lists(st.integers(1, 40), max_size=20), tokens=st.integers(1, 100))
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_batches_hold_each_row_once_within_the_budget_longest_first(lengths: list[int], tokens: int) -> None:
    batches = list(length_sorted_batches(lengths, tokens))
    flat = [place for batch in batches for place in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[place] for place in flat] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= tokens


@given(rows=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=20), tokens=st.integers(1, 100))
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_rows_with_one_key_are_neighbours_at_the_place_of_the_longest(rows: list[tuple[int, int]], tokens: int) -> None:
    lengths, keys = [length for length, _ in rows], [key for _, key in rows]
    batches = list(length_sorted_batches(lengths, tokens, keys))
    flat = [place for batch in batches for place in batch]
    assert sorted(flat) == list(range(len(rows)))
    order = list(dict.fromkeys(keys[place] for place in flat))
    assert [keys[place] for place in flat] == [key for key in order for _ in range(keys.count(key))]
    longest = [max(length for length, its in rows if its == key) for key in order]
    assert longest == sorted(longest, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= tokens
