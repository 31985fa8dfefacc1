"""One training of a study: the pairs as the trainer takes them, the mixture, and what it thinks of held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixdpo.data.pair_metadata import metadata_columns
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.preference import Judgement
from mixdpo.policy.context import Context
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import new_experts
from mixdpo.policy.tokens import TokenRow, encode_rows
from mixdpo.policy.weighting import Weighting, new_weighting
from mixdpo.studies.labelling import Comparisons
from mixdpo.studies.setting import Setting
from mixdpo.studies.world import World
from mixdpo.training import Mixture, PreferencePairs, Setup, TrainingResult, train_mixture
from mixdpo.training.growth import grow_mixture
from mixdpo.training.pairs import annotator_codes
from mixdpo.training.validation import look

Rows = Sequence[dict[str, Any]]


class Trained(NamedTuple):
    mixture: Mixture
    result: TrainingResult


def train(world: World, setting: Setting, comparisons: Comparisons, seed: int) -> Trained:
    """Train one mixture from the reference policy."""
    policy, settings = setting.policy, setting.training
    generator = torch.Generator().manual_seed(seed)
    experts = new_experts(world.new_model(), policy.experts, policy.architecture.model_dump(mode="json"), generator)
    weighting = new_weighting(policy.weights, policy.experts, _context(world, comparisons.train), generator)
    weights = policy.weights
    strangers = weights.annotators.unknown if weights.kind == "gate" and weights.annotators else 0.0
    learned_from = _pairs(world, comparisons.train, weighting, settings.max_tokens, strangers)
    validation = _pairs(world, comparisons.validation, weighting, settings.max_tokens)
    mixture = Mixture(experts, weighting, Likelihood.of(policy, settings))
    fit = grow_mixture if policy.growth else train_mixture
    result = fit(mixture, learned_from, validation, Setup(settings, policy, seed, *world.compute))
    return Trained(mixture, result)


def judge(world: World, setting: Setting, mixture: Mixture, pairs: HeldOut) -> Judgement:
    """What a trained mixture thinks of held-out pairs: as `judge_pairs`, with the world's reference log-probs."""
    names = list(pairs.columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*pairs.columns.values(), strict=True)]
    settings = setting.training
    known = _pairs(world, rows, mixture.weighting, settings.max_tokens)
    view = look(mixture, known, settings.tile_tokens, *world.compute)
    # a weight of 0 becomes one that no evidence outweighs, so that sums stay finite
    least = np.log(np.finfo(np.float64).tiny)
    log_weights = np.maximum(view.log_weights.double().cpu().numpy(), least)
    return Judgement(view.logits.double().cpu().numpy(), log_weights, setting.policy.latent)


def _pairs(world: World, rows: Rows, weighting: Weighting, max_tokens: int, strangers: float = 0.0) -> PreferencePairs:
    """Rows of PREFERENCES, joined with what the world knows of their completions.

    Args:
        strangers: share of the pairs that `weighting` sees as from an annotator it does not know.
    """
    ids = [row["pair_id"] for row in rows]
    annotators = [row["annotator"] for row in rows]
    chosen, rejected = (_side(world, rows, side, max_tokens) for side in ("chosen", "rejected"))
    return PreferencePairs(
        ids=ids,
        chosen=chosen.rows,
        rejected=rejected.rows,
        annotators=annotator_codes(annotators),
        chosen_reference=chosen.logps,
        rejected_reference=rejected.logps,
        features=weighting.encode(_context(world, rows).with_strangers(ids, strangers)),
        annotator_names=list(dict.fromkeys(annotators)),
    )


class _Side(NamedTuple):
    rows: list[TokenRow]
    logps: Tensor  # (pairs,) under the reference


def _side(world: World, rows: Rows, side: str, max_tokens: int) -> _Side:
    """The chosen or the rejected completions."""
    prompts, texts, finished = ([row[name] for row in rows] for name in ("prompt", side, f"{side}_finished"))
    logps = [world.logp(*candidate) for candidate in zip(prompts, texts, finished, strict=True)]
    return _Side(encode_rows(world.tokenizer, prompts, texts, finished, max_tokens), torch.tensor(logps))


def _context(world: World, rows: Rows) -> Context:
    prompts = [row["prompt"] for row in rows]
    return Context(
        prompts,
        lambda: world.prompt_features(prompts),
        [row["annotator"] for row in rows],
        metadata_columns([row["metadata"] for row in rows], [row["domain"] for row in rows]),
    )
