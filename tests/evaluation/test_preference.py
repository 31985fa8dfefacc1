from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from mixdpo.evaluation.preference import (
    History,
    Judgement,
    by_style,
    calibration_error,
    hits,
    log_predictive,
    log_sigmoid,
    preference_difference,
    preference_metrics,
    worst,
)
from mixdpo.evaluation.statistics import Bootstrap, Floats
from mixdpo.objective import marginal_log_likelihood
from mixdpo.objective.evidence import leave_one_out_weights

BOOTSTRAP = Bootstrap(200, 0)


def judgement(rows: int = 24, experts: int = 3, latent: str = "annotator", seed: int = 0) -> Judgement:
    generator = np.random.default_rng(seed)
    log_weights = log_softmax(generator.normal(size=(rows, experts)), axis=1)
    return Judgement(3 * generator.normal(size=(rows, experts)), log_weights, latent)  # type: ignore[arg-type]


def specialists(annotators: int, pairs: int, strength: float) -> tuple[Judgement, Floats]:
    """Three tastes, expert k sure of annotators k, k+3, …; on others' pairs it is right half of the time."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(annotators), pairs)
    margins = strength * generator.choice([-1.0, 1.0], size=(len(groups), 3))
    margins[np.arange(len(groups)), groups % 3] = strength
    return Judgement(margins, np.full_like(margins, -np.log(3)), "annotator"), groups


def test_leaving_one_out_is_the_objectives_own_posterior() -> None:
    own, groups = judgement(), np.random.default_rng(1).integers(5, size=24)
    weights = leave_one_out_weights(
        torch.from_numpy(own.margins), torch.from_numpy(own.log_weights), torch.from_numpy(groups)
    )
    expected = marginal_log_likelihood(torch.from_numpy(own.margins), weights).numpy()
    np.testing.assert_allclose(log_predictive(own, groups), expected, atol=1e-12)


def test_a_stranger_is_predicted_by_the_weights_alone() -> None:
    own, groups = judgement(), np.arange(24) // 6
    expected = np.log((np.exp(own.log_weights) / (1 + np.exp(-own.margins))).sum(axis=1))
    np.testing.assert_allclose(log_predictive(own, groups, 0), expected, atol=1e-12)
    pair = Judgement(own.margins, own.log_weights, "pair")
    np.testing.assert_allclose(log_predictive(pair, groups), expected, atol=1e-12)


@pytest.mark.parametrize("comparisons", [1, 2, 5])
def test_history_is_the_next_pairs_of_the_annotator_going_round(comparisons: int) -> None:
    own, groups = judgement(rows=11), np.array([2, 0, 2, 0, 0, 1, 2, 2, 0, 2, 0])
    got = log_predictive(own, groups, comparisons)
    evidence = log_sigmoid(own.margins)
    for row in range(11):
        mine = np.flatnonzero(groups == groups[row])
        place = int(np.flatnonzero(mine == row)[0])
        following = np.roll(mine, -place)[1 : 1 + comparisons]
        prior = own.log_weights[[row, *following]].mean(axis=0)
        q = np.exp(log_softmax(prior + evidence[following].sum(axis=0)))
        assert got[row] == pytest.approx(np.log((q * np.exp(evidence[row])).sum()), abs=1e-12)


def test_what_was_said_before_counts_as_if_it_were_held_out_too() -> None:
    everything, groups = judgement(rows=20), np.random.default_rng(5).integers(4, size=20)
    before, after = np.arange(12), np.arange(12, 20)
    parts = [Judgement(everything.margins[rows], everything.log_weights[rows], "annotator") for rows in (before, after)]
    names = [f"a{group}" for group in groups]
    history = History.of(parts[0], names[:12], names[12:])
    np.testing.assert_allclose(
        log_predictive(parts[1], groups[after], history=history), log_predictive(everything, groups)[after], atol=1e-12
    )
    none = History.none(parts[1])
    np.testing.assert_array_equal(
        log_predictive(parts[1], groups[after], 2, none), log_predictive(parts[1], groups[after], 2)
    )


def test_a_history_is_the_first_pairs_and_strangers_have_none() -> None:
    before = judgement(rows=4)
    history = History.of(before, ["a", "b", "a", "a"], ["b", "a", "c"], most=2)
    evidence = log_sigmoid(before.margins)
    assert history.pairs.tolist() == [1, 2, 0]
    np.testing.assert_allclose(history.evidence, [evidence[1], evidence[0] + evidence[2], np.zeros(3)])
    np.testing.assert_allclose(history.log_weights[1], before.log_weights[[0, 2]].sum(axis=0))


def test_more_comparisons_than_there_are_is_all_others() -> None:
    own, groups = judgement(), np.arange(24) // 4
    np.testing.assert_array_equal(log_predictive(own, groups, 99), log_predictive(own, groups))


def test_one_expert_knows_nothing_from_history() -> None:
    own, groups = judgement(experts=1), np.arange(24) // 4
    np.testing.assert_allclose(log_predictive(own, groups), log_sigmoid(own.margins)[:, 0], atol=1e-12)


def test_an_annotator_with_one_pair_is_a_stranger() -> None:
    own, groups = judgement(), np.arange(24)
    np.testing.assert_allclose(log_predictive(own, groups), log_predictive(own, groups, 0), atol=1e-12)


def test_order_of_rows_does_not_matter() -> None:
    own, groups = judgement(), np.random.default_rng(2).integers(6, size=24)
    shuffle = np.random.default_rng(3).permutation(24)
    moved = Judgement(own.margins[shuffle], own.log_weights[shuffle], "annotator")
    np.testing.assert_allclose(log_predictive(moved, groups[shuffle]), log_predictive(own, groups)[shuffle], atol=1e-12)


def test_extreme_margins_stay_finite() -> None:
    own, groups = judgement(), np.arange(24) // 4
    huge = Judgement(own.margins * 1e4, own.log_weights, "annotator")
    assert np.isfinite(log_predictive(huge, groups)).all()


def test_with_specialists_every_comparison_helps() -> None:
    own, groups = specialists(annotators=60, pairs=8, strength=3.0)
    curve = [log_predictive(own, groups, m).mean() for m in (0, 1, 2, 4, 7)]
    assert curve == sorted(curve)
    assert curve[-1] > -0.15 > curve[0]


def test_a_policy_without_opinion_is_half_right_at_log_two_and_calibrated() -> None:
    nothing = Judgement(np.zeros((10, 3)), np.full((10, 3), -np.log(3)), "annotator")
    values = log_predictive(nothing, np.arange(10) // 2)
    np.testing.assert_allclose(values, -np.log(2), atol=1e-12)
    assert hits(values).tolist() == [0.5] * 10
    assert calibration_error(values) == pytest.approx(0.0, abs=1e-12)


def test_calibration_error_is_zero_when_confidence_is_earned_and_large_when_not() -> None:
    label = np.random.default_rng(4).random(20_000) < 0.8
    earned = np.log(np.where(label, 0.8, 0.2))
    assert calibration_error(earned) < 0.01
    boast = np.log(np.where(label, 0.999, 0.001))
    assert calibration_error(boast) == pytest.approx(0.2, abs=0.02)


def test_difference_to_itself_is_zero_and_of_the_better_is_above() -> None:
    own, groups = specialists(annotators=30, pairs=6, strength=3.0)
    known, stranger = log_predictive(own, groups), log_predictive(own, groups, 0)
    same = preference_difference(known, known, groups, BOOTSTRAP)["log_likelihood"]
    assert (same["low"], same["high"]) == (0.0, 0.0)
    better = preference_difference(known, stranger, groups, BOOTSTRAP)["log_likelihood"]
    assert better["low"] > 0
    metrics = preference_metrics(known, groups, BOOTSTRAP)
    assert metrics["log_likelihood"]["clusters"] == 30
    assert metrics["accuracy"]["mean"] > 0.9


def test_the_worst_style_is_named_and_unknown_ones_left_out() -> None:
    values = np.log(np.array([0.9, 0.8, 0.3, 0.4, 0.1]))
    groups = by_style(values, np.arange(5), ["fond", "fond", "cross", "cross", None], BOOTSTRAP)
    assert list(groups) == ["cross", "fond"]
    assert groups["cross"]["accuracy"]["mean"] == 0.0
    assert worst(groups) == "cross"
    assert worst({}) is None
