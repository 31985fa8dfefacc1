"""The page escapes what users wrote, needs nothing from outside, and says what happened."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from mixdpo.config import Params
from mixdpo.data.expectations.gate import judge
from mixdpo.data.expectations.page import render
from mixdpo.data.schema import PREFERENCES, REVIEWS

Row = dict[str, Any]


@pytest.fixture
def stopped(params_with: Callable[..., Params], reviews: list[Row]) -> str:
    """Two bad rows, one with a script in its text, where one is allowed."""
    reviews[0] |= {"text": "<script>alert('x')</script> & \"more\"", "metadata": "<b>bold</b>"}
    reviews[1] |= {"text": None}
    params = params_with(validation={"max_bad_fraction": 0.1})
    return render(judge("reviews", pa.Table.from_pylist(reviews, schema=REVIEWS), REVIEWS, params))


def test_texts_of_users_are_escaped(stopped: str) -> None:
    assert "<script" not in stopped
    assert "<b>bold" not in stopped
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;more&#34;" in stopped


def test_nothing_is_loaded_from_elsewhere(stopped: str) -> None:
    assert not re.search(r"https?:|//|\bsrc=|\bhref=|@import|url\(", stopped)


def test_a_stopped_page_tells_why_and_what_to_do(stopped: str) -> None:
    assert "✗ Stopped" in stopped
    assert "2 of 12 rows are bad; validation.max_bad_fraction allows 10.0%" in stopped
    assert "<code>metadata</code> is not a JSON object" in stopped
    assert "Run the stage that writes this table again; ids are made from texts, never edited." in stopped
    assert "<b>Row 0</b>" in stopped
    assert "<b>Row 1</b>" in stopped


def test_a_passed_page_shows_warnings_and_no_quarantine(params: Params, preferences: list[Row]) -> None:
    preferences[0]["annotator"] = "annotator-1"
    page = render(judge("preferences", pa.Table.from_pylist(preferences, schema=PREFERENCES), PREFERENCES, params))
    assert "✓ Passed" in page
    assert "Every row goes on." in page
    assert "The annotator labels pairs in two splits" in page
    assert "Rows in quarantine" not in page


def test_long_texts_are_cut_and_samples_are_few(params: Params, reviews: list[Row]) -> None:
    for row in reviews[:5]:
        row["text"] = "long " * 1000
    page = render(judge("reviews", pa.Table.from_pylist(reviews, schema=REVIEWS), REVIEWS, params))
    assert "… (5,000 characters)" in page
    assert "3 of 5, a few for each reason" in page
