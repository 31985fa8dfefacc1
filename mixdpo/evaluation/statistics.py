"""Bootstrap intervals where rows come in clusters: all rows of one prompt, or of one annotator, stand or fall together.

Resampling rows as if they were independent makes intervals too narrow; here whole clusters are drawn (method.md §9).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixdpo.errors import DataError

Floats = NDArray[np.float64]
Times = NDArray[np.uint8]

LEVEL = 0.95
DRAWS_AT_ONCE = 1 << 20  # cluster indices held in memory together
KEPT_BYTES = 1 << 25  # draws of so many bytes at most are kept for the next statistic
KEPT = 8  # of so many numbers of clusters


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval; `clusters` is how many were resampled."""

    mean: float
    low: float
    high: float
    rows: int
    clusters: int

    def record(self) -> dict[str, float]:
        """As it stands in metrics files."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "rows": self.rows, "clusters": self.clusters}


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made, the same for a whole evaluation: `resamples` draws from `seed`."""

    resamples: int
    seed: int
    level: float = LEVEL

    def mean(self, values: Floats | Sequence[float], clusters: Sequence[object] | NDArray) -> Interval:
        """Mean of `values` (rows,), resampling the `clusters` (rows,) they belong to."""
        return self.means(np.asarray(values, dtype=np.float64)[:, None], clusters)[0]

    def difference(
        self, values: Floats | Sequence[float], baseline: Floats | Sequence[float], clusters: Sequence[object] | NDArray
    ) -> Interval:
        """Mean of `values` − `baseline`, paired row by row: what both share (a hard prompt) cancels."""
        return self.mean(np.asarray(values, dtype=np.float64) - np.asarray(baseline, dtype=np.float64), clusters)

    def means(self, values: Floats, clusters: Sequence[object] | NDArray) -> list[Interval]:
        """Means of the columns of `values` (rows, columns), all from the same resamples.

        Raises:
            DataError: there are no rows, or a value is not finite.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.shape[0] == 0:
            raise DataError("expected rows to average, got none; evaluate on a split that has some")
        if bad := int((~np.isfinite(values)).any(axis=1).sum()):
            raise DataError(
                f"expected finite values to average, got {bad} of {len(values)} rows that are not; "
                "look for a policy or reward model whose weights are not finite"
            )
        sums, counts = _by_cluster(values, clusters)
        resampled = self._resample(sums, counts)
        tail = (1 - self.level) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
        mean = sums.sum(axis=0) / counts.sum()
        return [
            Interval(float(mean[column]), float(low[column]), float(high[column]), len(values), len(counts))
            for column in range(values.shape[1])
        ]

    def _resample(self, sums: Floats, counts: Floats) -> Floats:
        """(resamples, columns): the mean of each draw of as many clusters as there are, with replacement."""
        clusters = len(counts)
        small = self.resamples * clusters <= KEPT_BYTES
        made = _kept_draws if small else draws
        both = np.column_stack([sums, counts])
        # one matrix product does all columns
        totals = np.concatenate(
            [times.astype(np.float64) @ both for times in made(self.seed, self.resamples, clusters, DRAWS_AT_ONCE)]
        )
        return np.asarray(totals[:, :-1] / totals[:, -1:])


def draws(seed: int, resamples: int, clusters: int, at_once: int) -> Iterator[Times]:
    """How often each cluster is in each draw, (draws, clusters): in parts, with all `resamples` draws in them.

    A byte is enough: that one of many clusters is in a draw 256 times has a probability below 1e-500.
    """
    generator = np.random.default_rng(seed)
    part = max(1, at_once // clusters)
    for start in range(0, resamples, part):
        size = min(part, resamples - start)
        picked = generator.integers(clusters, size=(size, clusters), dtype=np.int64)
        picked += np.arange(size)[:, None] * clusters
        yield np.bincount(picked.ravel(), minlength=size * clusters).reshape(size, clusters).astype(np.uint8)


@lru_cache(maxsize=KEPT)
def _kept_draws(seed: int, resamples: int, clusters: int, at_once: int) -> list[Times]:
    """An evaluation asks for the same draws a hundred times: prompts, annotators, and those of each style."""
    return list(draws(seed, resamples, clusters, at_once))


def _by_cluster(values: Floats, clusters: Sequence[object] | NDArray) -> tuple[Floats, Floats]:
    """Sums (clusters, columns) and row counts (clusters,)."""
    labels = np.asarray(clusters)
    if labels.shape != values.shape[:1]:
        raise ValueError(f"{len(values)} rows of values but clusters of shape {labels.shape}")
    _, member = np.unique(labels, return_inverse=True)
    counts: Floats = np.bincount(member).astype(np.float64)
    sums: Floats = np.stack([np.bincount(member, weights=column) for column in values.T], axis=1)
    return sums, counts
