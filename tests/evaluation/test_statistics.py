from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdpo.errors import DataError
from mixdpo.evaluation.statistics import Bootstrap, draws

BOOTSTRAP = Bootstrap(resamples=500, seed=0)


def test_mean_is_of_rows_whatever_the_clusters() -> None:
    values = np.array([1.0, 2.0, 6.0])
    assert BOOTSTRAP.mean(values, ["a", "a", "b"]).mean == pytest.approx(3.0)
    assert BOOTSTRAP.mean(values, ["a", "b", "c"]).mean == pytest.approx(3.0)


@settings(max_examples=20, deadline=None)
@given(st.floats(-1e6, 1e6), st.integers(2, 30))
def test_constant_data_has_an_interval_of_no_width(value: float, rows: int) -> None:
    interval = BOOTSTRAP.mean(np.full(rows, value), np.arange(rows) // 2)
    assert interval.low == pytest.approx(value, rel=1e-12)
    assert interval.high == pytest.approx(value, rel=1e-12)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        effects = generator.normal(size=50)  # 50 clusters of 4 rows that share most of their variation
        rows = np.repeat(effects, 4) + 0.3 * generator.normal(size=200)
        interval = Bootstrap(resamples=300, seed=int(generator.integers(2**31))).mean(rows, np.repeat(np.arange(50), 4))
        covered += interval.low <= 0 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_clustered_rows_make_wider_intervals_than_independent_ones() -> None:
    effects = np.random.default_rng(2).normal(size=50)
    rows = np.repeat(effects, 8)
    clustered = BOOTSTRAP.mean(rows, np.repeat(np.arange(50), 8))
    plain = BOOTSTRAP.mean(rows, np.arange(400))
    assert clustered.high - clustered.low > 2 * (plain.high - plain.low)


def test_clusters_of_one_row_are_the_plain_bootstrap() -> None:
    values = np.random.default_rng(3).normal(size=40)
    generator = np.random.default_rng(0)
    means = values[generator.integers(40, size=(500, 40))].mean(axis=1)
    interval = BOOTSTRAP.mean(values, np.arange(40))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)


def test_difference_is_antisymmetric_and_of_itself_zero() -> None:
    generator = np.random.default_rng(4)
    left, right, clusters = generator.normal(size=60), generator.normal(size=60), np.arange(60) // 3
    there, back = BOOTSTRAP.difference(left, right, clusters), BOOTSTRAP.difference(right, left, clusters)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low), abs=1e-12)
    same = BOOTSTRAP.difference(left, left, clusters)
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_pairing_cancels_what_both_share() -> None:
    generator = np.random.default_rng(5)
    hard = 10 * generator.normal(size=100)
    interval = BOOTSTRAP.difference(hard + 0.5, hard + 0.01 * generator.normal(size=100), np.arange(100))
    assert 0.49 < interval.low < interval.high < 0.51


def test_columns_share_their_resamples_and_equal_single_means() -> None:
    values = np.random.default_rng(6).normal(size=(30, 3))
    clusters = np.arange(30) // 2
    together = BOOTSTRAP.means(values, clusters)
    for column, interval in enumerate(together):
        alone = BOOTSTRAP.mean(values[:, column], clusters)
        assert (interval.low, interval.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


def test_same_seed_same_interval_other_seed_another() -> None:
    values = np.random.default_rng(7).normal(size=30)
    clusters = np.arange(30)
    assert BOOTSTRAP.mean(values, clusters) == Bootstrap(500, 0).mean(values, clusters)
    assert BOOTSTRAP.mean(values, clusters) != Bootstrap(500, 1).mean(values, clusters)


def test_chunked_draws_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = np.random.default_rng(8).normal(size=50), np.arange(50)
    whole = BOOTSTRAP.mean(values, clusters)
    monkeypatch.setattr("mixdpo.evaluation.statistics.DRAWS_AT_ONCE", 50 * 7)
    assert BOOTSTRAP.mean(values, clusters) == whole


def test_kept_draws_are_those_that_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = np.random.default_rng(8).normal(size=(60, 2)), np.arange(60) // 2
    kept = BOOTSTRAP.means(values, clusters)
    assert BOOTSTRAP.means(values, clusters) == kept
    monkeypatch.setattr("mixdpo.evaluation.statistics.KEPT_BYTES", 0)
    assert BOOTSTRAP.means(values, clusters) == kept


@pytest.mark.parametrize("clusters", [1, 2, 300])
def test_a_draw_counts_what_the_generator_picked(clusters: int) -> None:
    picked = np.random.default_rng(5).integers(clusters, size=(40, clusters))
    expected = [np.bincount(row, minlength=clusters) for row in picked]
    np.testing.assert_array_equal(np.concatenate(list(draws(5, 40, clusters, 7 * clusters))), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(DataError, match="expected finite values to average, got 1 of 2 rows that are not"):
        BOOTSTRAP.mean([1.0, bad], ["a", "b"])


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="expected rows to average, got none"):
        BOOTSTRAP.mean([], [])


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rows = np.random.default_rng(9).normal(size=100_000)
    start = time.perf_counter()
    Bootstrap(1000, 0).mean(rows, np.arange(100_000) // 10)
    assert time.perf_counter() - start < 5
