"""From raw reviews to clean ones, with a count of everything that was dropped on the way."""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import pyarrow as pa
from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning

from mixdpo.config.data import Cleaning
from mixdpo.data.near_duplicates import near_duplicates
from mixdpo.data.schema import REVIEWS, text_id
from mixdpo.data.sources import RawReview
from mixdpo.data.spill import Column, Sorted, Spilled
from mixdpo.files import canonical_json
from mixdpo.progress import track

REASONS = ("empty", "short", "contradictory", "duplicate", "near_duplicate")
FAULTLESS = re.compile(r"[\t\n\r -%'-~]*")  # printable ASCII but for &: nothing to mend, and half of the time saved
TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--")
# tags that part words; all others (<i>, <b> …) stand inside a word or beside a mark
PARTING = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|td|th|table|h[1-6]|hr|blockquote)\b[^<>]*>", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
NEAR = 0.25  # a cut may go back over this share of max_words to end with a sentence
KNOWN = (field for field in REVIEWS if field.name != "split")
CLEANED = pa.schema([*KNOWN, ("batch", pa.int64()), ("cut", pa.bool_()), ("disputed", pa.bool_())])
ARRIVED = pa.schema([("batch", pa.int64()), ("place", pa.int64()), ("text", pa.string())])


@dataclass
class Tally:
    """What became of the reviews: once all are through, `read` is the kept ones and sum(dropped.values())."""

    read: int = 0
    cut: int = 0  # kept, but shortened to max_words
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))


def clean_reviews(raw: Iterable[RawReview], cleaning: Cleaning, tally: Tally, spill: Path) -> Iterator[dict[str, Any]]:
    """Clean the texts, cut long ones, and drop what is of no use; rows come with a review_id and in its order.

    Reasons, in the order they are looked for: `empty` (no text left), `short` (fewer than min_words), `contradictory`
    (the same text once as positive and once as negative; all of them go), `duplicate` (the first one stays, one with
    a label before one without), `near_duplicate` (of those that came first, the smallest review_id stays).

    What was kept stays, with its split, when batches are added, but for reviews that become contradictory. Nothing
    that resembles one of these, or any that was kept, is ever kept beside or after it: no text moves to another split
    by way of its near-duplicates.

    Args:
        tally: is added to; whole once all rows were taken.
        spill: directory for what does not stay in memory: twice the reviews. Any number of them can be cleaned.

    Yields:
        Rows of REVIEWS without their split.
    """
    ordered = Sorted(spill / "read.arrow", _readable(raw, cleaning, tally), CLEANED, "review_id")
    rows: Iterable[dict[str, Any]] = _different(ordered, tally)
    if cleaning.near_duplicate is not None:
        different = Spilled(spill / "different.arrow", rows, CLEANED)
        rows = _distinct(different, cleaning.near_duplicate, tally, spill)
    for row in rows:
        if not row["disputed"]:
            tally.cut += row["cut"]
            yield row


def _readable(raw: Iterable[RawReview], cleaning: Cleaning, tally: Tally) -> Iterator[dict[str, Any]]:
    """Reviews with enough text, cleaned."""
    for review in track(raw, "cleaning"):
        tally.read += 1
        whole = clean_text(review["text"])
        text = cut_text(whole, cleaning.max_words, cleaning.min_words)
        if not text:
            tally.dropped["empty"] += 1
        elif len(text.split()) < cleaning.min_words:
            tally.dropped["short"] += 1
        else:
            metadata = canonical_json(review["metadata"]).decode("utf-8")
            known = {"text": text, "metadata": metadata, "cut": text != whole, "disputed": False}
            yield {**review, "review_id": text_id(text), **known}


def _different(ordered: Iterable[dict[str, Any]], tally: Tally) -> Iterator[dict[str, Any]]:
    """One row a text, with the first batch that had it. Contradictory ones are counted, marked, and stay for now."""
    for _, group in groupby(ordered, itemgetter("review_id")):
        chosen = next(group)
        same, cut, batch = 0, False, chosen["batch"]
        labels: set[int] = set()
        for row in chain((chosen,), group):
            same += 1
            cut |= row["cut"]
            batch = min(batch, row["batch"])
            if row["label"] is not None:
                chosen = row if not labels else chosen
                labels.add(row["label"])
        disputed = len(labels) > 1
        tally.dropped["contradictory" if disputed else "duplicate"] += same if disputed else same - 1
        yield {**chosen, "cut": cut, "batch": batch, "disputed": disputed}


def _distinct(rows: Spilled, similarity: float, tally: Tally, spill: Path) -> Iterator[dict[str, Any]]:
    """The rows without near-duplicates of what came first.

    Contradictory texts hold their places here: before they were disputed, others had made way for them.
    """
    batches = np.fromiter(Column(rows, "batch"), np.int64, len(rows))
    first = np.argsort(batches, kind="stable")
    texts = Column(rows, "text")
    if batches.any():  # else they are in order already
        arrived = ({"batch": row["batch"], "place": place, "text": row["text"]} for place, row in enumerate(rows))
        texts = Column(Sorted(spill / "arrived.arrow", arrived, ARRIVED, "batch", "place"), "text")
    near = np.zeros(len(rows), dtype=bool)
    near[first[near_duplicates(texts, similarity, spill)]] = True
    for row, resembles in zip(rows, near, strict=True):
        if not resembles:
            yield row
        elif not row["disputed"]:
            tally.dropped["near_duplicate"] += 1


def clean_text(text: str) -> str:
    """Plain text: no HTML, encoding faults mended (ftfy), one space between words."""
    if TAG.search(text):
        with warnings.catch_warnings():
            # a review that consists of a web address is a review all the same
            warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
            text = BeautifulSoup(PARTING.sub(" ", text), "html.parser").get_text()
    elif "&" in text:
        text = html.unescape(text)
    if not FAULTLESS.fullmatch(text):
        text = ftfy.fix_text(text)
    return " ".join(text.split())


def cut_text(text: str, most: int, least: int = 1) -> str:
    """The first `most` words of a text; back to the end of a sentence where one is near and leaves `least` words."""
    words = text.split()
    if len(words) <= most:
        return text
    for end in range(most, max(least, int(most * (1 - NEAR))) - 1, -1):
        if SENTENCE_END.search(words[end - 1]):
            return " ".join(words[:end])
    return " ".join(words[:most])
