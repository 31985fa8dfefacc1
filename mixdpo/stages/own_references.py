"""Policies whose experts have references of their own: what the cache of the SFT policy cannot say of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mixdpo.compute import Compute
from mixdpo.config import Params
from mixdpo.config.policy import Policy
from mixdpo.files import directory_digest
from mixdpo.layout import Layout
from mixdpo.policy.experts import Experts
from mixdpo.policy.loading import reference_models
from mixdpo.reference.frozen import Completion, Frozen, FrozenScores


def reference_sources(params: Params, layout: Layout, policy: Policy) -> list[Path]:
    """The directories that `references` names, below `inputs`; none where the SFT policy is the only reference."""
    return [layout.root / params.inputs / source for source in policy.references or ()]


class OwnReferences:
    """One frozen reference an expert. Texts that one has scored in an earlier run are not scored again.

    Attributes:
        models: in the order of the experts.
        digests: of their directories.
    """

    models: Experts
    digests: list[str]

    def __init__(
        self, sources: Sequence[Path], tokenizer: PreTrainedTokenizerBase, compute: Compute, stores: Path
    ) -> None:
        self.models = reference_models(sources, tokenizer).to(compute.device)
        self.digests = [directory_digest(source) for source in sources]
        self._scores = {
            content: FrozenScores(f"reference {source}", content, partial(Frozen, model, tokenizer), compute, stores)
            for source, content, (model, _) in zip(sources, self.digests, self.models.models(), strict=True)
        }

    def features(self, prompts: Sequence[str]) -> Tensor:
        """What a gate sees of prompts, under the first reference, as in serving: (prompts, 2·width)."""
        return torch.from_numpy(self._scores[self.digests[0]].features(prompts))

    def logps(self, completions: Sequence[Completion]) -> Tensor:
        """log ρ_k(y|x) under each expert's own reference, nats: (completions, experts)."""
        each = {content: scores.logps(completions) for content, scores in self._scores.items()}
        return torch.from_numpy(np.stack([each[content] for content in self.digests], axis=1))

    def tidy(self) -> None:
        """See `FrozenScores.tidy`."""
        for scores in self._scores.values():
            scores.tidy()
