"""Drift is found where it is, and chance is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from mixdpo.config.data import Drift
from mixdpo.data.drift import Shift, by_chance, compare, deciles, stability_index
from mixdpo.data.profile import UNIT, Names, Numbers, Profile, TableProfile

LIMITS = Drift(against="staging", warn=0.1, refuse=0.25)
COUNTS = st.lists(st.integers(1, 1000), min_size=4, max_size=4).map(lambda counts: np.array(counts, dtype=float))


def numbers(values: np.ndarray, missing: int = 0) -> Numbers:
    counts, _ = np.histogram(np.clip(values, 0, 1), UNIT)
    return Numbers(
        edges=UNIT, counts=tuple(counts.tolist()), missing=missing, quantiles={"50%": float(np.median(values))}
    )


def profile(rows: int, **columns: Numbers | Names) -> Profile:
    return Profile(tables={"reviews": TableProfile(rows=rows, columns=columns)})


def names(missing: int = 0, **counts: int) -> Names:
    return Names(counts=counts, missing=missing)


def only(then: Profile, now: Profile, limits: Drift = LIMITS) -> Shift:
    [shift] = compare(then, now, limits)
    return shift


@given(COUNTS, COUNTS)
def test_the_index_is_the_divergence_both_ways(then: np.ndarray, now: np.ndarray) -> None:
    index = stability_index(then, now)
    assert index == pytest.approx(entropy(now, then) + entropy(then, now), abs=1e-9)
    assert index == pytest.approx(stability_index(now, then))
    assert stability_index(then, then) == 0


def test_bins_hold_a_tenth_of_the_earlier_rows_and_no_row_is_lost() -> None:
    rng = np.random.default_rng(0)
    then, now = numbers(rng.beta(2, 8, 1000), missing=5), numbers(rng.uniform(size=300))
    before, after = deciles(then, now)
    assert (before.sum(), after.sum()) == (1005, 300)
    assert before[:-1].min() >= 100
    assert len(before) <= 11
    assert (before[-1], after[-1]) == (5, 0)


@pytest.mark.parametrize("size", [40, 400, 4000])
def test_what_was_drawn_alike_stays_below_chance(size: int) -> None:
    rng = np.random.default_rng(size)
    above = 0
    for _ in range(400):
        then, now = deciles(numbers(rng.beta(2, 3, size)), numbers(rng.beta(2, 3, size)))
        above += stability_index(then, now) > by_chance(len(then), size, size)
    # 0.4 are expected of 400; empty bins of few rows make it some more
    assert above <= 6


@pytest.mark.parametrize(
    ("shape", "verdict"), [((2, 3), "ok"), ((2.8, 3), "warn"), ((6, 3), "refuse")], ids=["same", "some", "far"]
)
def test_scores_that_moved_are_told_by_how_far(shape: tuple[float, float], verdict: str) -> None:
    rng = np.random.default_rng(0)
    shift = only(
        profile(5000, score=numbers(rng.beta(2, 3, 5000))), profile(5000, score=numbers(rng.beta(*shape, 5000)))
    )
    assert (shift.name, shift.measure, shift.verdict) == ("reviews.score", "psi", verdict)
    assert shift.told.startswith("median 0.394 → ")


@pytest.mark.parametrize(
    ("now", "verdict", "told"),
    [
        (names(movie=690, book=310), "ok", "book 30.0% → 31.0%"),
        (names(movie=500, book=500), "warn", "book 30.0% → 50.0%"),
        (names(movie=300, book=700), "refuse", "book 30.0% → 70.0%, movie 70.0% → 30.0%"),
        (names(movie=600, book=280, game=120), "refuse", "game 0.0% → 12.0%"),
        (names(movie=500, book=200, missing=300), "refuse", "(missing) 0.0% → 30.0%"),
    ],
    ids=["same", "some", "far", "new name", "missing"],
)
def test_shares_that_moved_are_told_by_how_far(now: Names, verdict: str, told: str) -> None:
    shift = only(profile(1000, domain=names(movie=700, book=300)), profile(1000, domain=now))
    assert (shift.measure, shift.verdict) == ("kl", verdict)
    assert told in shift.told


def test_a_column_that_is_gone_is_as_bad_as_can_be_and_a_new_one_is_no_drift() -> None:
    then, now = profile(9, a=names(x=9), b=names(x=9)), profile(9, b=names(x=9), c=names(x=9))
    gone, same = compare(then, now, LIMITS)
    assert (gone.name, gone.measure, gone.verdict) == ("reviews.a", "absent", "refuse")
    assert (same.name, same.verdict) == ("reviews.b", "ok")
    assert only(profile(9, a=names(x=9)), profile(9), LIMITS.model_copy(update={"refuse": None})).verdict == "warn"


def test_few_rows_prove_nothing() -> None:
    then, now = profile(6, domain=names(movie=4, book=2)), profile(6, domain=names(movie=2, book=4))
    assert only(then, now).verdict == "ok"
    assert only(then, now).value > LIMITS.warn / 2


def test_an_empty_table_is_not_compared() -> None:
    assert compare(profile(9, a=names(x=9)), profile(0), LIMITS) == []
    assert compare(profile(0), profile(9, a=names(x=9)), LIMITS) == []
