"""Validated preferences and the reference cache, joined into what the trainer takes."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from mixdpo.config import Params
from mixdpo.data.pair_metadata import metadata_columns
from mixdpo.data.schema import PREFERENCES, read_table
from mixdpo.errors import TrainingError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.policy.context import Context
from mixdpo.policy.tokens import encode_rows
from mixdpo.policy.weighting import Weighting
from mixdpo.stages.own_references import OwnReferences
from mixdpo.stages.reference import LOGPS, PROMPTS, cache_key
from mixdpo.training.pairs import PreferencePairs, annotator_codes


def load_context(params: Params, layout: Layout, split: str, references: OwnReferences | None = None) -> Context:
    """What mixing weights may depend on, of the pairs of one split in their order.

    Args:
        references: of a policy that has its own; prompt features are theirs then, not those of the cache.

    Raises:
        TrainingError: the reference cache was computed from other data, weights or precision.
    """
    _refuse_stale(params, layout)
    return _context(layout, _pairs(layout, split), references)


def load_pairs(
    params: Params,
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    weighting: Weighting,
    strangers: float = 0.0,
    references: OwnReferences | None = None,
) -> PreferencePairs:
    """Pairs of one split, with what `weighting` depends on encoded as it reads it.

    Args:
        strangers: share of the pairs that `weighting` sees as from an annotator it does not know.
        references: of a policy that has its own; the log-probs and prompt features are theirs then.

    Raises:
        TrainingError: the reference cache was computed from other data, weights or precision.
        DataError: a pair is longer than training.max_tokens.
    """
    _refuse_stale(params, layout)
    pairs = _pairs(layout, split)
    ids = [pair["pair_id"] for pair in pairs]
    logps = {row["pair_id"]: row for row in read_table(layout.reference / "logps.parquet", LOGPS).to_pylist()}
    prompts = [pair["prompt"] for pair in pairs]
    annotators = [pair["annotator"] for pair in pairs]
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
    loaded = PreferencePairs(
        ids=ids,
        chosen=chosen,
        rejected=rejected,
        annotators=annotator_codes(annotators),
        chosen_reference=torch.tensor([logps[pair["pair_id"]]["chosen_logp"] for pair in pairs]),
        rejected_reference=torch.tensor([logps[pair["pair_id"]]["rejected_logp"] for pair in pairs]),
        features=weighting.encode(_context(layout, pairs, references).with_strangers(ids, strangers)),
        annotator_names=list(dict.fromkeys(annotators)),
    )
    return references.scored(loaded) if references is not None else loaded


def _pairs(layout: Layout, split: str) -> list[dict[str, Any]]:
    table = read_table(layout.validated("preferences"), PREFERENCES)
    return [pair for pair in table.to_pylist() if pair["split"] == split]


def _context(layout: Layout, pairs: list[dict[str, Any]], references: OwnReferences | None) -> Context:
    prompts = [pair["prompt"] for pair in pairs]

    def features() -> torch.Tensor:
        if references is not None:
            return references.features(prompts)
        order = read_table(layout.reference / "prompts.parquet", PROMPTS)["prompt_id"].to_pylist()
        row = {prompt_id: place for place, prompt_id in enumerate(order)}
        cached = load_file(layout.reference / "features.safetensors")["features"]
        return cached[[row[pair["prompt_id"]] for pair in pairs]]

    return Context(
        prompts=prompts,
        prompt_features=features,
        annotators=[pair["annotator"] for pair in pairs],
        metadata=metadata_columns([pair["metadata"] for pair in pairs], [pair["domain"] for pair in pairs]),
    )


def _refuse_stale(params: Params, layout: Layout) -> None:
    found, wanted = read_json(layout.reference / "key.json"), cache_key(params, layout)
    differ = sorted(name for name in wanted if found.get(name) != wanted[name])
    if differ:
        raise TrainingError(
            f"the reference log-probs in {layout.reference} were computed from other {', '.join(differ)}; "
            f"run `mixdpo reference` (or `dvc repro`) before training"
        )
