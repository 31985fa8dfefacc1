from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from mixdpo.evaluation.text_metrics import text_metrics, words

TEXTS = ["the film was very good indeed", "the film was very bad indeed", "a book of many slow pages"]


def test_words_are_lower_case_and_punctuation_stands_alone() -> None:
    assert words("It's GOOD, really.") == ["it's", "good", ",", "really", "."]


def test_distinct_counts_different_ngrams_among_all() -> None:
    got = text_metrics(["a a b", "a b"])
    assert (got["distinct_1"], got["distinct_2"], got["distinct_3"]) == pytest.approx((2 / 5, 2 / 3, 1.0))


def test_self_bleu_is_one_for_copies_and_small_for_strangers() -> None:
    assert text_metrics(["the same words each time"] * 3)["self_bleu"] == pytest.approx(1.0)
    assert text_metrics(["one two three four five", "six seven eight nine ten"])["self_bleu"] == 0.0
    assert 0 < text_metrics(TEXTS)["self_bleu"] < 1
    assert text_metrics(["alone"])["self_bleu"] == 0.0


def ngram_counts(row: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(row[start : start + n]) for start in range(len(row) - n + 1))


def bleu(hypothesis: list[str], references: list[list[str]]) -> float:
    """BLEU-4 by its definition, one text against its references."""
    logs = []
    for n in range(1, 5):
        own, best = ngram_counts(hypothesis, n), Counter()
        for reference in references:
            best |= ngram_counts(reference, n)
        smooth = int(n > 1)
        precision = ((own & best).total() + smooth) / max(1, own.total() + smooth)
        logs.append(math.log(precision) if precision else -math.inf)
    length = min((len(row) for row in references), key=lambda other: (abs(other - len(hypothesis)), other))
    return math.exp(sum(logs) / 4 + min(0.0, 1 - length / len(hypothesis)))


def random_rows(seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [[rng.choice("abcde") for _ in range(rng.choice([1, 2, 3, 7, 12]))] for _ in range(25)]


@pytest.mark.parametrize(
    "rows",
    [
        [words(text) for text in [*TEXTS, "the film the film was slow", "pages of a book"]],
        random_rows(0),
        random_rows(1),
    ],
)
def test_self_bleu_in_one_pass_is_the_pairwise_computation(rows: list[list[str]]) -> None:
    expected = sum(bleu(row, rows[:i] + rows[i + 1 :]) for i, row in enumerate(rows)) / len(rows)
    got = text_metrics([" ".join(row) for row in rows])["self_bleu"]
    assert got == pytest.approx(expected, abs=1e-12)


def test_distinct_is_as_counted_one_by_one() -> None:
    rows = random_rows(2)
    got = text_metrics([" ".join(row) for row in rows])
    for n in (1, 2, 3):
        counts = sum((ngram_counts(row, n) for row in rows), Counter())
        assert got[f"distinct_{n}"] == len(counts) / counts.total()


def test_all_metrics_at_once_whatever_the_order_of_texts() -> None:
    one, other = text_metrics(TEXTS), text_metrics(TEXTS[::-1])
    assert one == pytest.approx(other)
    assert set(one) == {"distinct_1", "distinct_2", "distinct_3", "self_bleu", "mean_words"}


def test_length_is_in_words() -> None:
    assert text_metrics(["one two", "three."])["mean_words"] == 2.0


def test_empty_texts_are_texts() -> None:
    assert text_metrics(["", ""])["mean_words"] == 0.0
