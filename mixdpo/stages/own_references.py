"""Policies whose experts have references of their own: what the cache of the SFT policy cannot say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixdpo.compute import Compute
from mixdpo.config import Params
from mixdpo.config.policy import Policy
from mixdpo.layout import Layout
from mixdpo.policy.experts import Experts
from mixdpo.policy.loading import reference_models
from mixdpo.policy.scoring import prompt_features, score_rows
from mixdpo.policy.tokens import TokenRow, encode_prompts
from mixdpo.training.pairs import PreferencePairs


def reference_sources(params: Params, layout: Layout, policy: Policy) -> list[Path]:
    """The directories that `references` names, below `inputs`; none where the SFT policy is the only reference."""
    return [layout.root / params.inputs / source for source in policy.references or ()]


class OwnReferences:
    """One frozen reference an expert.

    Attributes:
        models: in the order of the experts.
    """

    models: Experts

    def __init__(self, sources: Sequence[Path], tokenizer: PreTrainedTokenizerBase, compute: Compute) -> None:
        self.models = reference_models(sources, tokenizer).to(compute.device)
        self._tokenizer, self._precision = tokenizer, compute.precision

    def features(self, prompts: Sequence[str]) -> Tensor:
        """What a gate sees of prompts, under the first reference, as in serving: (prompts, 2·width)."""
        rows = [TokenRow(ids, []) for ids in encode_prompts(self._tokenizer, prompts)]
        return prompt_features(self.models, rows, self._precision).cpu().clone()

    def scored(self, pairs: PreferencePairs) -> PreferencePairs:
        """The same pairs with log-probs under each expert's own reference: (pairs, experts)."""
        chosen, rejected = (
            # a copy, because what inference mode makes cannot take part in training
            score_rows(self.models, rows, self._precision).cpu().clone()
            for rows in (pairs.chosen, pairs.rejected)
        )
        return dataclasses.replace(pairs, chosen_reference=chosen, rejected_reference=rejected)
