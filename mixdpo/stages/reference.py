"""`mixdpo reference`: log-probs and prompt features under the frozen SFT policy, computed once.

data/reference/
    logps.parquet      a different completion a row: `key`, digest of its content, and `values`, its log-prob (nats)
    features.parquet   a different prompt a row: `key`, and `values`, its features
    key.json           digests of what this was computed with; a reader refuses another key

What an earlier run has computed with the same model, precision and code is not computed again (mixdpo/reference).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixdpo.compute import Compute, prepare_compute
from mixdpo.config import Params
from mixdpo.engine import FileShards
from mixdpo.errors import DataError
from mixdpo.files import directory_digest, replacing, write_json
from mixdpo.layout import Layout
from mixdpo.policy.loading import frozen_reference, load_causal_lm
from mixdpo.reference.frozen import Completion, Frozen, FrozenScores

PAIRS = pa.schema(
    [(name, pa.string()) for name in ("prompt", "chosen", "rejected")]
    + [(name, pa.bool_()) for name in ("chosen_finished", "rejected_finished")]
)
LOGPS, FEATURES, KEY = "logps.parquet", "features.parquet", "key.json"

SHARD = 1 << 16  # pairs


def cache_key(params: Params, layout: Layout) -> dict[str, Any]:
    """What a reader must find: form, weights, precision. That the texts are there, it sees by their keys."""
    return {"schema": 2, "sft": directory_digest(layout.sft), "dtype": params.compute.dtype}


def run(params: Params, layout: Layout) -> list[Path]:
    """Score every different completion once, whoever compared it and however often.

    Raises:
        DataError: there are no pairs, or a text is longer than the model reads.
        ModelError: data/sft is no causal language model, or a log-prob is no finite number.
    """
    preferences = layout.validated("preferences")
    pairs = FileShards(preferences, PAIRS, SHARD)
    if not pairs:
        raise DataError(f"{preferences} has no pairs; loosen the stages before, then run them again")
    compute, key = prepare_compute(params.compute), cache_key(params, layout)
    load = partial(_frozen, layout.sft, compute)
    scores = FrozenScores("the SFT policy", key["sft"], load, compute, layout.reference_stores)
    for shard in pairs:
        scores.logps(list(_completions(shard)))
        scores.features(shard["prompt"].unique().to_pylist())
    logps, features = scores.asked()
    with replacing(layout.reference) as target:
        target.mkdir(parents=True)
        logps.write(target / LOGPS)
        features.write(target / FEATURES)
        write_json(target / KEY, key)
    scores.tidy()
    write_json(
        layout.metrics("reference"),
        {
            "schema": 1,
            "pairs": pairs.rows,
            "different_completions": len(logps),
            "prompts": len(features),
            "mean_logp": float(logps.values.mean(dtype=np.float64)),
        },
    )
    return [layout.reference, layout.metrics("reference")]


def _frozen(directory: Path, compute: Compute) -> Frozen:
    model, tokenizer = load_causal_lm(directory)
    return Frozen(frozen_reference(model).to(compute.device), tokenizer)


def _completions(pairs: pa.Table) -> Iterator[Completion]:
    """Chosen and rejected of a pair after one another, so that their prompt runs once for both."""
    for row in zip(*(column.to_pylist() for column in pairs.columns), strict=True):
        prompt, chosen, rejected, chosen_finished, rejected_finished = row
        yield Completion(prompt, chosen, chosen_finished)
        yield Completion(prompt, rejected, rejected_finished)
