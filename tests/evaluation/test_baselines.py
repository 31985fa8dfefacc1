from __future__ import annotations

import numpy as np
import pytest

from mixdpo.evaluation.baselines import consensus, length_gap, length_slope, length_tastes


def test_the_slope_of_length_is_found_again() -> None:
    generator = np.random.default_rng(0)
    gaps = generator.normal(size=20_000)
    chosen = np.where(generator.random(20_000) < 1 / (1 + np.exp(-1.5 * gaps)), gaps, -gaps)
    assert length_slope(chosen) == pytest.approx(1.5, abs=0.05)
    assert length_slope(-chosen) == pytest.approx(-1.5, abs=0.05)


def test_two_tastes_for_length_are_found_again() -> None:
    generator = np.random.default_rng(1)
    annotators = np.repeat(np.arange(300), 20)
    slopes = np.where(annotators % 3 == 0, -1.0, 2.0)
    gaps = generator.normal(size=len(annotators))
    chosen = np.where(generator.random(len(gaps)) < 1 / (1 + np.exp(-slopes * gaps)), gaps, -gaps)
    found, shares = length_tastes(chosen, annotators, 2)
    assert found == pytest.approx([-1.0, 2.0], abs=0.15)
    assert shares == pytest.approx([1 / 3, 2 / 3], abs=0.05)
    (one,), (whole,) = length_tastes(chosen, annotators, 1)
    assert one == pytest.approx(length_slope(chosen), abs=1e-3)
    assert whole == 1.0


def test_the_gap_is_of_logs_and_empty_texts_are_finite() -> None:
    np.testing.assert_allclose(length_gap(["aaaa", "", "a"], ["aa", "", "aa"]), np.log([2.0, 1.0, 0.5]))


def test_consensus_is_what_most_others_said_of_the_same_two_texts() -> None:
    labels = [("p", "x", "y"), ("p", "x", "y"), ("p", "y", "x"), ("p", "x", "z"), ("q", "x", "y"), ("p", "x", "y")]
    found = consensus(labels, ["a", "b", "c", "a", "a", "a"])
    # b sees a, c, a; c sees a, b, a; a sees b and c, who differ; nobody else compared x with z, or said anything of q
    np.testing.assert_array_equal(found, [0.5, 1.0, 0.0, np.nan, np.nan, 0.5])
