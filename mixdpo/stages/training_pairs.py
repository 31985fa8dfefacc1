"""Validated preferences and the reference cache, joined into what the trainer takes."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from mixdpo.config import Params
from mixdpo.data.schema import PREFERENCES, read_table
from mixdpo.errors import TrainingError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.policy.tokens import encode_rows
from mixdpo.stages.reference import LOGPS, PROMPTS, cache_key
from mixdpo.training.pairs import PreferencePairs, annotator_codes


def load_pairs(params: Params, layout: Layout, tokenizer: PreTrainedTokenizerBase, split: str) -> PreferencePairs:
    """Pairs of one split.

    Raises:
        TrainingError: the reference cache was computed from other data, weights or precision.
        DataError: a pair is longer than training.max_tokens.
    """
    _refuse_stale(params, layout)
    table = read_table(layout.validated("preferences"), PREFERENCES)
    pairs = [pair for pair in table.to_pylist() if pair["split"] == split]
    logps = {row["pair_id"]: row for row in read_table(layout.reference / "logps.parquet", LOGPS).to_pylist()}
    order = read_table(layout.reference / "prompts.parquet", PROMPTS)["prompt_id"].to_pylist()
    feature_row = {prompt_id: row for row, prompt_id in enumerate(order)}
    features = load_file(layout.reference / "features.safetensors")["features"]
    prompts = [pair["prompt"] for pair in pairs]
    chosen, rejected = (
        encode_rows(
            tokenizer,
            prompts,
            [pair[side] for pair in pairs],
            [pair[f"{side}_finished"] for pair in pairs],
            params.training.max_tokens,
        )
        for side in ("chosen", "rejected")
    )
    return PreferencePairs(
        ids=[pair["pair_id"] for pair in pairs],
        chosen=chosen,
        rejected=rejected,
        annotators=annotator_codes([pair["annotator"] for pair in pairs]),
        chosen_reference=torch.tensor([logps[pair["pair_id"]]["chosen_logp"] for pair in pairs]),
        rejected_reference=torch.tensor([logps[pair["pair_id"]]["rejected_logp"] for pair in pairs]),
        features=features[[feature_row[pair["prompt_id"]] for pair in pairs]],
    )


def _refuse_stale(params: Params, layout: Layout) -> None:
    found, wanted = read_json(layout.reference / "key.json"), cache_key(params, layout)
    differ = sorted(name for name in wanted if found.get(name) != wanted[name])
    if differ:
        raise TrainingError(
            f"the reference log-probs in {layout.reference} were computed from other {', '.join(differ)}; "
            f"run `mixdpo reference` (or `dvc repro`) before training"
        )
