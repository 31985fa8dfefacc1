"""How varied and how long a set of samples is, as `evaluate` metrics. Importing this imports `evaluate` (seconds).

Each is a subclass of `evaluate.Metric`: use `.compute(predictions=texts)`, or all at once through `text_metrics`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WORD = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")
DISTINCT_ORDER = 3
BLEU_ORDER = 4


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks."""
    return WORD.findall(text.lower())


class Grams(NamedTuple):
    """The n-grams of a set of texts, as they come."""

    owners: Integers  # (M,) whose each is
    numbers: Integers  # (M,) the same for equal ones, from 0 on
    different: int


def grams(texts: Sequence[Sequence[str]], most: int) -> Iterator[Grams]:
    """Those of one word, of two, … of `most`."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    known: dict[str, int] = {}
    spoken = (known.setdefault(word, len(known)) for text in texts for word in text)
    tokens = np.fromiter(spoken, np.int64, lengths.sum())
    owners = np.repeat(np.arange(len(texts)), lengths)
    starts, numbers = np.arange(len(tokens)), tokens
    yield Grams(owners, numbers, len(known))
    for order in range(2, most + 1):
        ends = starts + order - 1
        inside = ends < len(tokens)
        inside[inside] = owners[starts[inside]] == owners[ends[inside]]
        starts, ends = starts[inside], ends[inside]
        different, numbers = np.unique(numbers[inside] * len(known) + tokens[ends], return_inverse=True)
        yield Grams(owners[starts], numbers, len(different))


class TextMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of texts alone, with no references. Final classes give `_compute`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )


class DistinctN(TextMetric):
    """Share of different n-grams among all n-grams of the set, n = 1, 2, 3 (Li et al. 2016). Falls as sets grow."""

    def _compute(self, predictions: Sequence[str]) -> dict[str, float]:
        found = grams([words(text) for text in predictions], DISTINCT_ORDER)
        return {f"distinct_{n}": each.different / max(1, len(each.numbers)) for n, each in enumerate(found, 1)}


class Length(TextMetric):
    """Mean number of words and punctuation marks."""

    def _compute(self, predictions: Sequence[str]) -> dict[str, float]:
        return {"mean_words": sum(len(words(text)) for text in predictions) / max(1, len(predictions))}


class SelfBLEU(TextMetric):
    """Mean BLEU-4 of each text against all others (Zhu et al. 2018): 1 says the same thing always. Add-one smoothed."""

    def _compute(self, predictions: Sequence[str]) -> dict[str, float]:
        tokens = [words(text) for text in predictions]
        if len(tokens) < 2:
            return {"self_bleu": 0.0}
        lengths = np.array([len(text) for text in tokens], dtype=np.int64)
        precisions = [_clipped_precisions(each, lengths, n) for n, each in enumerate(grams(tokens, BLEU_ORDER), 1)]
        with np.errstate(divide="ignore"):  # a text that shares nothing
            logs = np.log(precisions).mean(axis=0)
        penalties = np.minimum(0.0, 1 - _closest_others(lengths) / np.maximum(1, lengths))
        return {"self_bleu": float(np.exp(logs + penalties).mean())}


def _clipped_precisions(found: Grams, lengths: Integers, n: int) -> Floats:
    """For each text: n-grams also found in another (as often there, at most) over all its n-grams.

    The largest and the second largest count of each n-gram over the texts suffice to leave any one text out, so the
    whole set costs one pass and not one for every pair of texts.
    """
    own, counts = np.unique(found.owners * max(1, found.different) + found.numbers, return_counts=True)
    owners, numbers = np.divmod(own, max(1, found.different))
    order = np.lexsort((-counts, numbers))
    starts = np.searchsorted(numbers[order], np.arange(found.different))
    ranked = np.append(counts[order], 0)
    first = ranked[starts]
    alone = np.append(starts[1:], len(order)) - starts < 2
    second = np.where(alone, 0, ranked[starts + 1])
    others = np.where(counts == first[numbers], second[numbers], first[numbers])
    matched = np.bincount(owners, weights=np.minimum(counts, others), minlength=len(lengths))
    smoothing = 0 if n == 1 else 1  # Lin and Och 2004: higher orders only
    totals = np.maximum(0, lengths - n + 1)
    return np.asarray((matched + smoothing) / np.maximum(1, totals + smoothing))


def _closest_others(lengths: Integers) -> Integers:
    """For each of two lengths or more the nearest among the others, the shorter on a tie."""
    ordered = np.sort(lengths)
    place = np.searchsorted(ordered, lengths)
    below = ordered[np.maximum(place - 1, 0)]
    above = ordered[np.minimum(place + 1, len(ordered) - 1)]
    shorter = (place > 0) & ((place + 1 == len(ordered)) | (lengths - below <= above - lengths))
    return np.asarray(np.where(shorter, below, above))


def text_metrics(texts: Sequence[str]) -> dict[str, float]:
    """All metrics of this file for one set of samples."""
    # the default would make folders in the user's home on every run, and fail where that cannot be written
    with tempfile.TemporaryDirectory() as cache:
        metrics = [kind(cache_dir=cache, keep_in_memory=True) for kind in (DistinctN, SelfBLEU, Length)]
        result: dict[str, float] = evaluate.combine(metrics).compute(predictions=list(texts))
    return {name: float(value) for name, value in result.items()}
