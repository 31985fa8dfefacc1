from __future__ import annotations

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdpo.config.data import Cleaning
from mixdpo.data.cleaning import FAULTLESS, Tally, clean_reviews, clean_text, cut_text
from mixdpo.data.schema import split_of, text_id


def raw(text, label=None, domain="movie", batch=0):
    known = {"stars": None, "user_id": None, "metadata": {}}
    return {"text": text, "domain": domain, "label": label, "batch": batch, **known}


def rules(least=1, most=50, near=None):
    return Cleaning(min_words=least, max_words=most, near_duplicate=near)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """What `clean_reviews` keeps, and its tally."""
    spill = tmp_path_factory.mktemp("spill")

    def clean(reviews, cleaning):
        tally = Tally()
        return list(clean_reviews(reviews, cleaning, tally, spill)), tally

    return clean


@pytest.mark.parametrize(
    ("dirty", "expected"),
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
def test_clean_text(dirty, expected):
    assert clean_text(dirty) == expected


def test_a_cut_goes_back_to_a_near_sentence_end_only():
    assert cut_text("a b c", 3) == "a b c"
    assert cut_text("a b c. d e f", 4) == "a b c."
    assert cut_text('a b "c." d e f', 4) == 'a b "c."'
    assert cut_text("a. b c d e f", 4) == "a. b c d"  # too far back
    assert cut_text("a b c. d e f", 4, least=4) == "a b c. d"


@settings(max_examples=50)
@given(st.from_regex(FAULTLESS, fullmatch=True))
def test_what_is_taken_for_faultless_has_nothing_to_mend(text):
    assert ftfy.fix_text(text).split() == text.split()


def test_each_reason_is_counted(clean):
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
    rows, tally = clean(reviews, rules(least=4, most=8))
    assert tally.dropped == {"empty": 2, "short": 1, "contradictory": 2, "duplicate": 2, "near_duplicate": 0}
    kept = {row["text"]: row for row in rows}
    assert set(kept) == {"the same text with no label", "a text that is a little too long."}
    assert kept["the same text with no label"]["label"] == 1
    assert tally.cut == 1
    assert all(row["review_id"] == text_id(row["text"]) for row in rows)


@settings(deadline=None)  # a file or two each
@given(
    st.lists(st.tuples(st.text("ab <>&;.", max_size=40), st.sampled_from([0, 1, None])), max_size=25),
    st.sampled_from([None, 0.5, 1.0]),
)
def test_everything_is_kept_or_counted_and_order_does_not_matter(clean, texts, near):
    reviews = [raw(text, label) for text, label in texts]
    rows, tally = clean(reviews, rules(least=2, most=6, near=near))
    assert len(rows) + sum(tally.dropped.values()) == tally.read == len(reviews)
    ids = [row["review_id"] for row in rows]
    assert ids == sorted(set(ids))
    rows_again, tally_again = clean(reviews[::-1], rules(least=2, most=6, near=near))
    assert [row["text"] for row in rows_again] == [row["text"] for row in rows]
    assert tally_again == tally


def test_of_near_duplicates_the_smallest_id_stays(clean):
    words = [f"word{number}" for number in range(60)]
    texts = [" ".join([*words, end]) for end in ("one", "two", "three")]
    rows, tally = clean([raw(text) for text in texts], rules(most=100, near=0.8))
    assert [row["review_id"] for row in rows] == [min(map(text_id, texts))]
    assert tally.dropped["near_duplicate"] == 2
    rows, tally = clean([raw(text) for text in texts], rules(most=100, near=None))
    assert len(rows) == 3
    assert tally.dropped["near_duplicate"] == 0


def test_what_came_first_stays_whatever_its_id(clean):
    words = [f"word{number}" for number in range(60)]
    texts = sorted((" ".join([*words, end]) for end in ("one", "two", "three")), key=text_id, reverse=True)
    reviews = [raw(text, batch=place) for place, text in enumerate(texts)]
    rows, _ = clean(reviews, rules(most=100, near=0.8))
    assert [row["text"] for row in rows] == [texts[0]]


VERSIONS = [
    " ".join([*(f"{topic}{number}" for number in range(30)), end])
    for topic in ("plot", "cast", "score")
    for end in "abcdef"
]
ARRIVING = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(VERSIONS), st.sampled_from([0, 1, None])), max_size=25)


@settings(deadline=None, max_examples=50)  # files each
@given(ARRIVING)
def test_no_text_moves_to_another_split_by_itself_or_its_near_duplicates_when_data_grow(clean, arriving):
    splits: dict[str, str] = {}  # of each topic, whose texts all resemble each other: where it was first seen
    kept: set[str] = set()
    for last in range(4):
        reviews = [raw(text, label, batch=batch) for batch, text, label in arriving if batch <= last]
        cleaned, tally = clean(reviews, rules(most=100, near=0.8))
        assert len(cleaned) + sum(tally.dropped.values()) == len(reviews)
        for row in cleaned:
            topic = row["text"].split("0")[0]
            split = split_of(row["review_id"], 0.3, 0.3)
            assert splits.setdefault(topic, split) == split
        disputed = {text for text in VERSIONS if len({r["label"] for r in reviews if r["text"] == text} - {None}) > 1}
        now = {row["text"] for row in cleaned}
        assert kept - disputed <= now
        kept |= now
