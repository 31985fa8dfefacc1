"""Labelled texts for one reward dimension, each in one split and for one role.

Split and role are by hash of the text: the annotators' model and the judge never learn from the same text, and the
texts of the test split serve no training, only measurement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mixdpo.config.data import Splits
from mixdpo.config.models import CorruptionLabels, FileLabels, LabelSource, ReviewLabels
from mixdpo.data.schema import role_of, split_of, text_id, unit_hash
from mixdpo.data.tables import as_text, find_files, read_rows
from mixdpo.errors import DataError
from mixdpo.rewards.corruptions import corrupt

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'“(]?[A-Z])")
SENTENCE_WORDS = (4, 40)
COLUMNS = ("label", "stars")


class Example(NamedTuple):
    """One labelled text."""

    text: str
    target: float  # 0 to 1
    split: str
    role: str
    whole: bool = False  # the target is a single sentence's and may not hold for a part of it
    intact: str | None = None  # of a damaged sentence: what it was before


def read_examples(
    sources: Sequence[LabelSource], reviews: pa.Table, inputs: Path, splits: Splits, seed: int
) -> list[Example]:
    """All examples of these sources, each text once (the first source that has it decides).

    Args:
        reviews: table of schema.REVIEWS. Their own split holds.
        inputs: directory that file patterns are relative to.
        seed: of the damage done by `corruptions`.

    Raises:
        DataError: no file, column or field of that name; nothing labelled; a target outside its range (names the row).
    """
    found: dict[str, Example] = {}
    for source in sources:
        examples: Iterable[Example]
        match source:
            case ReviewLabels():
                examples = _from_reviews(source, reviews)
            case FileLabels():
                examples = _from_files(source, inputs, splits)
            case CorruptionLabels():
                # a review that another source finds faulty is no source of faultless sentences
                faulty = {example.text for example in found.values() if example.target < 1.0}
                examples = _from_corruptions(source, reviews, faulty, seed)
        for example in examples:
            found.setdefault(example.text, example)
    return list(found.values())


def _from_reviews(source: ReviewLabels, reviews: pa.Table) -> list[Example]:
    if not reviews.num_rows:
        raise DataError("the validated reviews are empty, so nothing is labelled; name another `source`")
    if source.field in COLUMNS:
        values = reviews[source.field].to_pylist()
    else:
        values = [json.loads(metadata).get(source.field) for metadata in reviews["metadata"].to_pylist()]
    rows = zip(*(reviews[name].to_pylist() for name in ("review_id", "text", "split")), values, strict=True)
    examples = [
        Example(text, _target(value, source.range, source.field, f"review {review_id}"), split, role_of(review_id))
        for review_id, text, split, value in rows
        if value is not None
    ]
    if not examples:
        keys = sorted({key for metadata in reviews["metadata"].to_pylist() for key in json.loads(metadata)})
        raise DataError(
            f"no review has a value for {source.field}; the columns {', '.join(COLUMNS)} and the metadata fields "
            f"{', '.join(keys) or '(none)'} can be named as `field` of the labels"
        )
    return examples


def _from_files(source: FileLabels, inputs: Path, splits: Splits) -> list[Example]:
    examples = []
    for path in find_files(source.paths, inputs):
        for row in read_rows(path, [source.text, source.target], text=[source.text]):
            text = " ".join(as_text(row, source.text).split())
            if not text:
                raise DataError(
                    f"{row.origin}: column {source.text} is empty, expected text; fill it or remove the row"
                )
            identifier = text_id(text)
            split = split_of(identifier, splits.validation, splits.test)
            target = _target(row.values[source.target], source.range, source.target, row.origin)
            examples.append(Example(text, target, split, role_of(identifier), True))
    if not examples:
        raise DataError(f"{', '.join(source.paths)} has no rows; name files with labelled texts")
    if source.limit is not None:
        examples.sort(key=lambda example: (unit_hash(text_id(example.text), "limit"), example.text))
    return examples[: source.limit]


def _from_corruptions(source: CorruptionLabels, reviews: pa.Table, faulty: set[str], seed: int) -> Iterator[Example]:
    """Pairs of a sentence (1) and its damaged self (0); both take split and role of their review."""
    sentences: dict[str, tuple[str, str]] = {}
    rows = zip(*(reviews[name].to_pylist() for name in ("review_id", "text", "split")), strict=True)
    for review_id, text, split in rows:
        if text not in faulty:
            for sentence in split_sentences(text):
                sentences.setdefault(sentence, (split, role_of(review_id)))
    if not sentences:
        low, high = SENTENCE_WORDS
        raise DataError(
            f"the reviews hold no faultless sentence of {low} to {high} words to damage; "
            "remove the `corruptions` labels or name other reviews"
        )
    chosen = sorted(sentences, key=lambda sentence: (unit_hash(text_id(sentence), "limit"), sentence))[: source.limit]
    generator = np.random.default_rng(seed)
    for sentence in chosen:
        split, role = sentences[sentence]
        yield Example(sentence, 1.0, split, role, True)
        yield Example(corrupt(sentence, generator), 0.0, split, role, True, intact=sentence)


def split_sentences(text: str) -> list[str]:
    """Sentences of SENTENCE_WORDS words, spaces between words made single."""
    low, high = SENTENCE_WORDS
    sentences = (" ".join(part.split()) for part in SENTENCE_END.split(text))
    return [sentence for sentence in sentences if low <= len(sentence.split()) <= high]


def _target(value: Any, bounds: tuple[float, float], field: str, origin: str) -> float:
    """`value` mapped so that `bounds` become 0 and 1."""
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int | float):
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"{origin}: {field} is {value!r}, expected a number from {low:g} to {high:g}; correct or remove the row"
            ) from None
    target = (value - low) / (high - low)
    # a NaN fails this test too
    if not 0.0 <= target <= 1.0:
        raise DataError(
            f"{origin}: {field} is {value:g}, outside {low:g} to {high:g}; correct the row, or `range` in params.yaml"
        )
    return float(target)
