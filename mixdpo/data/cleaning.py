"""From raw reviews to clean ones, with a count of everything that was dropped on the way."""

from __future__ import annotations

import html
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ftfy
from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning

from mixdpo.config.data import Cleaning
from mixdpo.data.near_duplicates import near_duplicates
from mixdpo.data.schema import text_id
from mixdpo.data.sources import RawReview
from mixdpo.progress import track

REASONS = ("empty", "short", "contradictory", "duplicate", "near_duplicate")
TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--")
# tags that part words; all others (<i>, <b> …) stand inside a word or beside a mark
PARTING = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|td|th|table|h[1-6]|hr|blockquote)\b[^<>]*>", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
NEAR = 0.25  # a cut may go back over this share of max_words to end with a sentence


@dataclass(frozen=True)
class Cleaned:
    """`rows` have the text cleaned and a review_id; len(raw) = len(rows) + sum(dropped.values()), always."""

    rows: list[dict[str, Any]]
    dropped: dict[str, int]  # by reason, all of REASONS
    cut: int  # reviews kept, but shortened to max_words


def clean_reviews(raw: Sequence[RawReview], cleaning: Cleaning) -> Cleaned:
    """Clean the texts, cut long ones, and drop what is of no use.

    Reasons, in the order they are looked for: `empty` (no text left), `short` (fewer than min_words), `contradictory`
    (the same text once as positive and once as negative; all of them go), `duplicate` (the first one stays, one with
    a label before one without), `near_duplicate` (of those that came first, the smallest review_id stays).

    What was kept stays, with its split, when batches are added, but for reviews that become contradictory. Nothing
    that resembles one of these, or any that was kept, is ever kept beside or after it: no text moves to another split
    by way of its near-duplicates.
    """
    dropped = dict.fromkeys(REASONS, 0)
    by_text: dict[str, list[RawReview]] = defaultdict(list)
    shortened: set[str] = set()
    for review in track(raw, "cleaning"):
        whole = clean_text(review["text"])
        text = cut_text(whole, cleaning.max_words, cleaning.min_words)
        if not text:
            dropped["empty"] += 1
        elif len(text.split()) < cleaning.min_words:
            dropped["short"] += 1
        else:
            by_text[text].append(review)
            if text != whole:
                shortened.add(text)
    rows: list[dict[str, Any]] = []
    contradictory: set[str] = set()
    for text, same in by_text.items():
        chosen = next((review for review in same if review["label"] is not None), same[0])
        if len({review["label"] for review in same} - {None}) > 1:
            dropped["contradictory"] += len(same)
            contradictory.add(text)
        else:
            dropped["duplicate"] += len(same) - 1
        rows.append({**chosen, "review_id": text_id(text), "text": text, "batch": min(each["batch"] for each in same)})
    if cleaning.near_duplicate is not None:
        rows.sort(key=lambda row: (row["batch"], row["review_id"]))
        # contradictory texts hold their places here: before they were disputed, others had made way for them
        places = set(near_duplicates([row["text"] for row in rows], cleaning.near_duplicate))
        dropped["near_duplicate"] = sum(rows[place]["text"] not in contradictory for place in places)
        rows = [row for place, row in enumerate(rows) if place not in places]
    rows = sorted((row for row in rows if row["text"] not in contradictory), key=lambda row: row["review_id"])
    return Cleaned(rows, dropped, cut=sum(row["text"] in shortened for row in rows))


def clean_text(text: str) -> str:
    """Plain text: no HTML, encoding faults mended (ftfy), one space between words."""
    if TAG.search(text):
        with warnings.catch_warnings():
            # a review that consists of a web address is a review all the same
            warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
            text = BeautifulSoup(PARTING.sub(" ", text), "html.parser").get_text()
    elif "&" in text:
        text = html.unescape(text)
    return " ".join(ftfy.fix_text(text).split())


def cut_text(text: str, most: int, least: int = 1) -> str:
    """The first `most` words of a text; back to the end of a sentence where one is near and leaves `least` words."""
    words = text.split()
    if len(words) <= most:
        return text
    for end in range(most, max(least, int(most * (1 - NEAR))) - 1, -1):
        if SENTENCE_END.search(words[end - 1]):
            return " ".join(words[:end])
    return " ".join(words[:most])
