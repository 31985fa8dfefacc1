"""How varied and how long a set of samples is, as `evaluate` metrics. Importing this imports `evaluate` (seconds).

Each is a subclass of `evaluate.Metric`: use `.compute(predictions=texts)`, or all at once through `text_metrics`.
"""

from __future__ import annotations

import math
import re
import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import datasets
import evaluate

WORD = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")
BLEU_ORDER = 4


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks."""
    return WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))


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
        tokens = [words(text) for text in predictions]
        result = {}
        for n in (1, 2, 3):
            counts: Counter[tuple[str, ...]] = Counter()
            for row in tokens:
                counts.update(ngrams(row, n))
            result[f"distinct_{n}"] = len(counts) / max(1, counts.total())
        return result


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
        precisions = [_clipped_precisions(tokens, n) for n in range(1, BLEU_ORDER + 1)]
        lengths = sorted(len(row) for row in tokens)
        total = 0.0
        for place, row in enumerate(tokens):
            logs = [math.log(order[place]) if order[place] > 0 else -math.inf for order in precisions]
            penalty = min(0.0, 1 - _closest_other(lengths, len(row)) / max(1, len(row)))
            total += math.exp(sum(logs) / BLEU_ORDER + penalty)
        return {"self_bleu": total / len(tokens)}


def _clipped_precisions(tokens: Sequence[Sequence[str]], n: int) -> list[float]:
    """For each text: n-grams also found in another (as often there, at most) over all its n-grams.

    The largest and the second largest count of each n-gram over the texts suffice to leave any one text out, so the
    whole set costs one pass and not one for every pair of texts.
    """
    counts = [ngrams(row, n) for row in tokens]
    largest: dict[tuple[str, ...], tuple[int, int]] = {}
    for row in counts:
        for gram, count in row.items():
            first, second = largest.get(gram, (0, 0))
            largest[gram] = (max(first, count), max(second, min(first, count)))
    smoothing = 0 if n == 1 else 1  # Lin and Och 2004: higher orders only
    result = []
    for row in counts:
        matched = 0
        for gram, count in row.items():
            first, second = largest[gram]
            matched += min(count, second if count == first else first)
        result.append((matched + smoothing) / max(1, row.total() + smoothing))
    return result


def _closest_other(lengths: Sequence[int], own: int) -> int:
    """The length nearest to `own` among the others, the shorter on a tie; `lengths` are sorted and hold `own`."""
    place = bisect_left(lengths, own)
    neighbours = [lengths[place - 1]] if place else []
    if place + 1 < len(lengths):
        neighbours.append(lengths[place + 1])
    return min(neighbours, key=lambda length: (abs(length - own), length))


def text_metrics(texts: Sequence[str]) -> dict[str, float]:
    """All metrics of this file for one set of samples."""
    # the default would make folders in the user's home on every run, and fail where that cannot be written
    with tempfile.TemporaryDirectory() as cache:
        metrics = [kind(cache_dir=cache, keep_in_memory=True) for kind in (DistinctN, SelfBLEU, Length)]
        result: dict[str, float] = evaluate.combine(metrics).compute(predictions=list(texts))
    return {name: float(value) for name, value in result.items()}
