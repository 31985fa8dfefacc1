"""Divergence of named shares, as Great Expectations measures it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mixdpo.data.expectations.library import gx, gxe
from mixdpo.data.expectations.runner import batch_of

HOLDOUT = 1e-3  # share that names take together which the earlier rows do not have

Counted = Mapping[str, int]


def divergences(columns: Mapping[str, tuple[Counted, Counted]]) -> dict[str, float]:
    """The Kullback-Leibler divergence (nats) of each column's names now from those then, given as (then, now).

    All columns are of one table, so the counts now have one sum.
    """
    frame = pd.DataFrame({name: np.repeat(list(now), list(now.values())) for name, (_, now) in columns.items()})
    expectations = [_expectation(name, then) for name, (then, _) in columns.items()]
    suite = gx.ExpectationSuite(name="drift", expectations=expectations)
    results = batch_of(frame).validate(suite).results
    return {each.expectation_config.kwargs["column"]: float(each.result["observed_value"]) for each in results}


def _expectation(column: str, then: Counted) -> Any:
    weights = np.array(list(then.values())) / sum(then.values())
    return gxe.ExpectColumnKLDivergenceToBeLessThan(
        column=column,
        partition_object={"values": list(then), "weights": weights.tolist()},
        threshold=np.inf,
        tail_weight_holdout=HOLDOUT,
    )
