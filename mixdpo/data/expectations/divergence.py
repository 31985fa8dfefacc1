"""Divergence of named shares, as Great Expectations measures it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mixdpo.data.expectations.library import gx, gxe
from mixdpo.data.expectations.runner import batch_of

HOLDOUT = 1e-3  # share that names take together which the earlier rows do not have

Counted = Mapping[str, int]


def divergences(columns: Mapping[str, tuple[Counted, Counted]]) -> dict[str, float]:
    """The Kullback-Leibler divergence (nats) of each column's names now from those then, given as (then, now)."""
    found = {}
    for column, (then, now) in columns.items():
        weights = np.array(list(then.values())) / sum(then.values())
        expectation = gxe.ExpectColumnKLDivergenceToBeLessThan(
            column=column,
            partition_object={"values": list(then), "weights": weights.tolist()},
            threshold=np.inf,
            tail_weight_holdout=HOLDOUT,
        )
        rows = pd.DataFrame({column: np.repeat(list(now), list(now.values()))})
        suite = gx.ExpectationSuite(name="drift", expectations=[expectation])
        [result] = batch_of(rows).validate(suite).results
        found[column] = float(result.result["observed_value"])
    return found
