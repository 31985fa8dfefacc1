from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.config.data import Cleaning
from mixdpo.data.cleaning import clean_reviews, clean_text, cut_text
from mixdpo.data.schema import split_of, text_id


def raw(text, label=None, domain="movie", batch=0):
    known = {"stars": None, "user_id": None, "metadata": {}}
    return {"text": text, "domain": domain, "label": label, "batch": batch, **known}


def rules(least=1, most=50, near=None):
    return Cleaning(min_words=least, max_words=most, near_duplicate=near)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("Good.<br /><br />Very <i>good</i>!", "Good. Very good!"),
        ("<p>One</p><p>two</p>", "One two"),
        ("Tom &amp; Jerry &lt;3", "Tom & Jerry <3"),
        ("AT&amp;T <b>x</b>", "AT&T x"),
        ("cafÃ© at the sea", "café at the sea"),
        ("  many \t\n spaces\u00a0here ", "many spaces here"),
        ("1 < 2 and a<b", "1 < 2 and a<b"),
        ("https://example.org/<br>", "https://example.org/"),
        ("<br/>", ""),
    ],
)
def test_clean_text(dirty, clean):
    assert clean_text(dirty) == clean


def test_a_cut_goes_back_to_a_near_sentence_end_only():
    assert cut_text("a b c", 3) == "a b c"
    assert cut_text("a b c. d e f", 4) == "a b c."
    assert cut_text('a b "c." d e f', 4) == 'a b "c."'
    assert cut_text("a. b c d e f", 4) == "a. b c d"  # too far back
    assert cut_text("a b c. d e f", 4, least=4) == "a b c. d"


def test_each_reason_is_counted():
    reviews = [
        raw(""),
        raw("<br />"),
        raw("too short"),
        raw("the same text with no label"),
        raw("the same text with no label", label=1),
        raw("the same  text with no label<br>"),
        raw("this text is disputed by two", label=1),
        raw("this text is disputed by two", label=0),
        raw("a text that is a little too long. for the limit"),
    ]
    cleaned = clean_reviews(reviews, rules(least=4, most=8))
    assert cleaned.dropped == {"empty": 2, "short": 1, "contradictory": 2, "duplicate": 2, "near_duplicate": 0}
    kept = {row["text"]: row for row in cleaned.rows}
    assert set(kept) == {"the same text with no label", "a text that is a little too long."}
    assert kept["the same text with no label"]["label"] == 1
    assert cleaned.cut == 1
    assert all(row["review_id"] == text_id(row["text"]) for row in cleaned.rows)


@given(
    st.lists(st.tuples(st.text("ab <>&;.", max_size=40), st.sampled_from([0, 1, None])), max_size=25),
    st.sampled_from([None, 0.5, 1.0]),
)
def test_everything_is_kept_or_counted_and_order_does_not_matter(texts, near):
    reviews = [raw(text, label) for text, label in texts]
    cleaned = clean_reviews(reviews, rules(least=2, most=6, near=near))
    assert len(cleaned.rows) + sum(cleaned.dropped.values()) == len(reviews)
    assert len({row["review_id"] for row in cleaned.rows}) == len(cleaned.rows)
    again = clean_reviews(reviews[::-1], rules(least=2, most=6, near=near))
    assert [row["text"] for row in again.rows] == [row["text"] for row in cleaned.rows]
    assert again.dropped == cleaned.dropped


def test_of_near_duplicates_the_smallest_id_stays():
    words = [f"word{number}" for number in range(60)]
    texts = [" ".join([*words, end]) for end in ("one", "two", "three")]
    cleaned = clean_reviews([raw(text) for text in texts], rules(most=100, near=0.8))
    assert [row["review_id"] for row in cleaned.rows] == [min(map(text_id, texts))]
    assert cleaned.dropped["near_duplicate"] == 2
    assert len(clean_reviews([raw(text) for text in texts], rules(most=100, near=None)).rows) == 3


def test_what_came_first_stays_whatever_its_id():
    words = [f"word{number}" for number in range(60)]
    texts = sorted((" ".join([*words, end]) for end in ("one", "two", "three")), key=text_id, reverse=True)
    reviews = [raw(text, batch=place) for place, text in enumerate(texts)]
    assert [row["text"] for row in clean_reviews(reviews, rules(most=100, near=0.8)).rows] == [texts[0]]


VERSIONS = [
    " ".join([*(f"{topic}{number}" for number in range(30)), end])
    for topic in ("plot", "cast", "score")
    for end in "abcdef"
]
ARRIVING = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(VERSIONS), st.sampled_from([0, 1, None])), max_size=25)


@given(ARRIVING)
def test_no_text_moves_to_another_split_by_itself_or_its_near_duplicates_when_data_grow(arriving):
    splits: dict[str, str] = {}  # of each topic, whose texts all resemble each other: where it was first seen
    kept: set[str] = set()
    for last in range(4):
        reviews = [raw(text, label, batch=batch) for batch, text, label in arriving if batch <= last]
        cleaned = clean_reviews(reviews, rules(most=100, near=0.8)).rows
        for row in cleaned:
            topic = row["text"].split("0")[0]
            split = split_of(row["review_id"], 0.3, 0.3)
            assert splits.setdefault(topic, split) == split
        disputed = {text for text in VERSIONS if len({r["label"] for r in reviews if r["text"] == text} - {None}) > 1}
        now = {row["text"] for row in cleaned}
        assert kept - disputed <= now
        kept |= now
