"""`mixdpo reference`: log-probs and prompt features under the frozen SFT policy, computed once.

data/reference/
    logps.parquet         pair_id, chosen_logp, rejected_logp (nats)
    features.safetensors  `features` (prompts, width), rows named by prompts.parquet
    prompts.parquet       prompt_id in the order of the feature rows
    key.json              digests of what this was computed from; a reader refuses another key
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors.torch import save_file

from mixdpo.compute import prepare_compute
from mixdpo.config import Params
from mixdpo.data.schema import PREFERENCES, read_table, write_table
from mixdpo.errors import DataError
from mixdpo.files import directory_digest, file_digest, replacing, write_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy

LOGPS = pa.schema([("pair_id", pa.string()), ("chosen_logp", pa.float64()), ("rejected_logp", pa.float64())])
PROMPTS = pa.schema([("prompt_id", pa.string())])


def cache_key(params: Params, layout: Layout) -> dict[str, Any]:
    """What the cache depends on: data, weights, precision."""
    return {
        "schema": 1,
        "preferences": file_digest(layout.validated("preferences")),
        "sft": directory_digest(layout.sft),
        "dtype": params.compute.dtype,
    }


def run(params: Params, layout: Layout) -> list[Path]:
    """Score every different completion once, whoever compared it and however often."""
    compute = prepare_compute(params.compute)
    pairs = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    if not pairs:
        raise DataError(
            f"{layout.validated('preferences')} has no pairs; loosen the stages before, then run them again"
        )
    policy = MixturePolicy.from_causal_lm(layout.sft).to(compute.device)
    policy.precision = compute.precision
    sides = [
        [(pair["prompt"], pair[side], pair[f"{side}_finished"]) for pair in pairs] for side in ("chosen", "rejected")
    ]
    different = list(dict.fromkeys(sides[0] + sides[1]))
    prompts, completions, finished = (list(column) for column in zip(*different, strict=True))
    logp = dict(zip(different, policy.reference_logps(prompts, completions, finished).tolist(), strict=True))
    texts = {pair["prompt_id"]: pair["prompt"] for pair in pairs}
    features = policy.prompt_features(list(texts.values()))
    with replacing(layout.reference) as target:
        target.mkdir(parents=True)
        write_table(
            target / "logps.parquet",
            [
                {"pair_id": pair["pair_id"], "chosen_logp": logp[chosen], "rejected_logp": logp[rejected]}
                for pair, chosen, rejected in zip(pairs, *sides, strict=True)
            ],
            LOGPS,
        )
        write_table(target / "prompts.parquet", [{"prompt_id": prompt_id} for prompt_id in texts], PROMPTS)
        save_file({"features": features.cpu().contiguous()}, target / "features.safetensors")
        write_json(target / "key.json", cache_key(params, layout))
    values = list(logp.values())
    write_json(
        layout.metrics("reference"),
        {
            "schema": 1,
            "pairs": len(pairs),
            "different_completions": len(different),
            "prompts": len(texts),
            "mean_logp": sum(values) / len(values),
        },
    )
    return [layout.reference, layout.metrics("reference")]
