"""The learned gate w_k(x, u): linear or with one hidden layer (method.md §4)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mixdpo.policy.context import Context
from mixdpo.policy.gate_inputs import UNKNOWN, GateInputs
from mixdpo.policy.weighting.base import Weighting


class Gate(Weighting):
    """log w = log-softmax of a network on standardised prompt features, metadata and a vector of the annotator.

    Attributes:
        floor: w = floor / K + (1 − floor) · softmax, so that no expert's weight falls below floor / K.
    """

    mean: Tensor  # (width of the prompt features,)
    scale: Tensor  # (width of the prompt features,)

    def __init__(
        self,
        inputs: GateInputs,
        experts: int,
        hidden: int,
        generator: torch.Generator | None = None,
        *,
        embedding: int = 0,
        floor: float = 0.0,
    ) -> None:
        """A gate whose weights are uniform until it is trained.

        Args:
            hidden: width of the hidden layer, 0 for none.
            generator: of the hidden layer and of the annotators' vectors.
            embedding: width of an annotator's vector, where `inputs` has annotators.
        """
        super().__init__()
        self.inputs, self.hidden, self.floor = inputs, hidden, floor
        self.sees_prompts = inputs.prompt > 0
        self.annotators = inputs.annotators
        self.columns = tuple(column.name for column in inputs.columns)
        self.register_buffer("mean", torch.zeros(inputs.prompt))
        self.register_buffer("scale", torch.ones(inputs.prompt))
        self.embedding: nn.Embedding | None = None
        width = inputs.dense
        if inputs.annotators is not None:
            # small differences to start with: with all vectors equal to 0 neither they nor the layer above would move
            vectors = torch.randn((len(inputs.annotators) + 1, embedding), generator=generator) / embedding**0.5
            # before it has learnt, a stranger is nobody in particular
            vectors[UNKNOWN] = 0.0
            self.embedding = nn.Embedding.from_pretrained(vectors, freeze=False)
            width += embedding
        last = nn.Linear(hidden or width, experts)
        self.layers = nn.Sequential(last)
        if hidden:
            first = nn.Linear(width, hidden)
            with torch.no_grad():
                first.weight.copy_(torch.randn(first.weight.shape, generator=generator) / width**0.5)
                first.bias.zero_()
            self.layers = nn.Sequential(first, nn.GELU(), last)
        # uniform weights at the start: before the experts differ, the gate has nothing to say
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @torch.no_grad()
    def standardise(self, prompt_features: Tensor) -> None:
        """Fix mean and scale of the prompt features from those of training: (prompts, width)."""
        self.mean.copy_(prompt_features.mean(dim=0))
        spread = prompt_features.std(dim=0, correction=0)
        # what never varied in training must not shout when it does later
        self.scale.copy_(torch.where(spread > 1e-6 * (1 + self.mean.abs()), spread, 1.0))

    def encode(self, context: Context) -> Tensor:
        return self.inputs.encode(context)

    def forward(self, features: Tensor | None, rows: int) -> Tensor:
        assert features is not None
        assert len(features) == rows
        prompt, rest = features.float().tensor_split([self.inputs.prompt], dim=-1)
        parts = [(prompt - self.mean) / self.scale, rest]
        if self.embedding is not None:
            parts[1:] = [rest[:, :-1], self.embedding(rest[:, -1].long())]
        log_weights = torch.log_softmax(self.layers(torch.cat(parts, dim=-1)).float(), dim=-1)
        if not self.floor:
            return log_weights
        least = torch.full_like(log_weights, math.log(self.floor / log_weights.shape[-1]))
        return torch.logaddexp(least, math.log1p(-self.floor) + log_weights)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "gate",
            "hidden": self.hidden,
            "floor": self.floor,
            "embedding": 0 if self.embedding is None else self.embedding.embedding_dim,
            "inputs": self.inputs.describe(),
        }
