from __future__ import annotations

import numpy as np
import pytest

from mixdpo.rewards.quality import agreement, quality


def test_perfect_scores():
    targets = np.array([0.0, 1.0, 0.0, 1.0])
    assert quality(targets, targets) == {
        "test_texts": 4,
        "accuracy": 1.0,
        "auc": 1.0,
        "spearman": pytest.approx(1.0),
        "ece": 0.0,
        "brier": 0.0,
    }


def test_calibration_of_scores_that_are_probabilities():
    generator = np.random.default_rng(0)
    scores = generator.random(50_000)
    targets = (generator.random(50_000) < scores).astype(float)
    assert quality(scores, targets)["ece"] < 0.01
    # scores twice as far from 0.5 on the log-odds scale are overconfident
    odds = (scores / (1 - scores)) ** 2
    assert quality(odds / (1 + odds), targets)["ece"] > 0.05


def test_known_values():
    figures = quality(np.array([0.2, 0.6, 0.7]), np.array([0.0, 0.0, 1.0]))
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["auc"] == 1.0
    assert figures["brier"] == pytest.approx((0.04 + 0.36 + 0.09) / 3)
    assert figures["ece"] == pytest.approx((0.2 + 0.6 + 0.3) / 3)


def test_what_cannot_be_told_is_null():
    one_class = quality(np.array([0.2, 0.6]), np.array([1.0, 1.0]))
    assert one_class["auc"] is None
    assert one_class["spearman"] is None
    empty = quality(np.empty(0), np.empty(0))
    assert empty == {"test_texts": 0} | dict.fromkeys(("accuracy", "auc", "spearman", "ece", "brier"))


def test_agreement():
    left, right = np.array([0.1, 0.4, 0.9]), np.array([0.2, 0.6, 0.8])
    figures = agreement(left, right)
    assert figures["spearman"] == pytest.approx(1.0)
    assert figures["same_side"] == pytest.approx(2 / 3)
    assert figures["mean_difference"] == pytest.approx(0.4 / 3)
