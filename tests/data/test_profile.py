"""Profiles count every row once, and are the same whatever the batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.data.profile import (
    MOST_NAMES,
    OTHERS,
    STARS,
    WORDS,
    Names,
    Numbers,
    Profile,
    TableProfile,
    profile_preferences,
    profile_reviews,
    profile_scores,
)
from mixdpo.data.schema import PREFERENCES, REVIEWS, scores_schema


def reviews(*rows: dict[str, Any]) -> pa.RecordBatch:
    known = {"review_id": "", "text": "A fine film.", "domain": "movie", "split": "train", "metadata": "{}"}
    return pa.RecordBatch.from_pylist([known | row for row in rows], schema=REVIEWS)


def numbers(profile: TableProfile, column: str) -> Numbers:
    found = profile.columns[column]
    assert isinstance(found, Numbers)
    return found


def names(profile: TableProfile, column: str) -> Names:
    found = profile.columns[column]
    assert isinstance(found, Names)
    return found


def test_lengths_labels_stars_and_domains_are_counted() -> None:
    profile = profile_reviews([reviews({"label": 1, "stars": 5}, {"text": "Bad.", "label": 0, "stars": 1}, {})])
    assert profile.rows == 3
    words = numbers(profile, "words")
    assert {edge: count for edge, count in zip(WORDS, words.counts, strict=False) if count} == {1: 1, 3: 2}
    assert words.quantiles["50%"] == 3
    assert (sum(numbers(profile, "stars").counts), numbers(profile, "stars").missing) == (2, 1)
    assert names(profile, "label") == Names(counts={"0": 1, "1": 1}, missing=1)
    assert names(profile, "domain") == Names(counts={"movie": 3}, missing=0)


ROWS = st.fixed_dictionaries(
    {
        "text": st.text("a ", min_size=1, max_size=9).map(lambda text: text or "a"),
        "stars": st.none() | st.floats(1, 5),
        "label": st.sampled_from([None, 0, 1]),
        "domain": st.sampled_from(["movie", "book"]),
    }
)


@given(st.lists(ROWS, min_size=1, max_size=30), st.integers(1, 7))
def test_every_row_is_counted_once_and_batches_do_not_matter(rows: list[dict[str, Any]], size: int) -> None:
    whole = profile_reviews([reviews(*rows)])
    assert whole == profile_reviews(reviews(*rows[at : at + size]) for at in range(0, len(rows), size))
    for column in whole.columns.values():
        counts = column.counts.values() if isinstance(column, Names) else column.counts
        assert sum(counts) + column.missing == len(rows)


def test_margins_are_of_pairs_whose_texts_were_scored() -> None:
    dimensions = ("grammar", "sentiment")
    known = {"candidate_id": "", "prompt": "", "finished": True, "domain": "movie", "split": "train"}
    candidates = [
        {**known, "prompt_id": prompt, "completion": text, "grammar": grammar, "sentiment": 0.5}
        for prompt, text, grammar in (("p", "good one", 0.9), ("p", "bad", 0.2), ("q", "bad", 0.9))
    ]
    scores = pa.RecordBatch.from_pylist(candidates, schema=scores_schema(dimensions))
    pairs = [
        {"prompt_id": "p", "chosen": chosen, "rejected": rejected, "annotator": "a", "style": None, "domain": "movie"}
        for chosen, rejected in (("good one", "bad"), ("bad", "unseen text"))
    ]
    batch = pa.RecordBatch.from_pylist(pairs, schema=PREFERENCES)
    profile = profile_preferences([batch], [scores], dimensions)
    assert numbers(profile, "margin.grammar").quantiles["50%"] == pytest.approx(0.7)
    assert numbers(profile, "margin.sentiment").quantiles["50%"] == 0
    assert numbers(profile, "margin.grammar").missing == 1
    assert names(profile, "longer") == Names(counts={"chosen": 1, "rejected": 1}, missing=0)
    assert names(profile, "style").missing == 2
    assert numbers(profile, "annotator.pairs").quantiles["50%"] == 2
    # and where nothing was scored, all are missing
    assert numbers(profile_preferences([batch], [], dimensions), "margin.grammar").missing == 2
    assert numbers(profile_scores([scores], dimensions), "score.grammar").quantiles["95%"] == pytest.approx(0.9)


def test_what_is_out_of_bounds_or_rare_is_counted_too() -> None:
    batch = reviews(*({"domain": f"domain-{number:03}", "stars": 99.0} for number in range(MOST_NAMES + 7)))
    profile = profile_reviews([batch])
    assert numbers(profile, "stars").counts[-1] == MOST_NAMES + 7
    assert len(numbers(profile, "stars").counts) == len(STARS) - 1
    assert names(profile, "domain").counts[OTHERS] == 7


def test_it_is_read_as_it_was_written() -> None:
    profile = Profile(tables={"reviews": profile_reviews([reviews({"label": 1}, {})])})
    assert Profile.model_validate_json(profile.model_dump_json(by_alias=True)) == profile
    assert np.isfinite(numbers(profile.tables["reviews"], "words").edges).all()
