"""How well scores in [0, 1] agree with targets in [0, 1], and two models with each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 10


def quality(scores: Floats, targets: Floats) -> dict[str, float | int | None]:
    """Figures of one model on held-out texts; null where the texts cannot tell.

    accuracy and auc are over texts whose target is not 0.5, taken as a class; spearman, ece (expected calibration
    error over 10 bins of equal width) and brier (mean squared difference) are over the targets as they are.
    """
    from sklearn.metrics import roc_auc_score

    sided = targets != 0.5
    classes = targets[sided] > 0.5
    both = 0 < classes.sum() < len(classes)
    return {
        "test_texts": len(targets),
        "accuracy": float(np.mean((scores[sided] >= 0.5) == classes)) if sided.any() else None,
        "auc": float(roc_auc_score(classes, scores[sided])) if both else None,
        "spearman": _spearman(scores, targets),
        "ece": _calibration_error(scores, targets) if len(targets) else None,
        "brier": float(np.mean((scores - targets) ** 2)) if len(targets) else None,
    }


def agreement(annotator: Floats, judge: Floats) -> dict[str, float | int | None]:
    """How alike two models score the same texts."""
    return {
        "test_texts": len(annotator),
        "spearman": _spearman(annotator, judge),
        "same_side": float(np.mean((annotator >= 0.5) == (judge >= 0.5))) if len(annotator) else None,
        "mean_difference": float(np.mean(np.abs(annotator - judge))) if len(annotator) else None,
    }


def _spearman(left: Floats, right: Floats) -> float | None:
    from scipy.stats import spearmanr

    if len(left) < 2 or np.ptp(left) == 0.0 or np.ptp(right) == 0.0:
        return None
    return float(spearmanr(left, right).statistic)


def _calibration_error(scores: Floats, targets: Floats) -> float:
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=scores - targets, minlength=BINS)
    return float(np.abs(gaps).sum() / len(scores))
