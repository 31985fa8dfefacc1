"""Mixing weights w_k(x): fixed, one learned prior for all, or a gate on prompt features (method.md §4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PriorWeights(nn.Module):
    """The same weights for every prompt: `fixed`, or `global` where the trainer updates them in closed form."""

    needs_features = False
    log_weights: Tensor  # (experts,)

    def __init__(self, log_weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.log_softmax(log_weights.float(), dim=-1))

    @classmethod
    def uniform(cls, experts: int) -> PriorWeights:
        return cls(torch.zeros(experts))

    def forward(self, features: Tensor | None, prompts: int) -> Tensor:  # noqa: ARG002 (as a gate is called)
        """→ (prompts, experts) log-weights, normalised."""
        return self.log_weights.expand(prompts, -1)


class Gate(nn.Module):
    """log w(x) = log-softmax of a linear map, or of one hidden layer, on standardised prompt features."""

    needs_features = True
    mean: Tensor  # (width,) of the features
    scale: Tensor  # (width,)

    def __init__(self, width: int, experts: int, hidden: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
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
    def standardise(self, features: Tensor) -> None:
        """Fix mean and scale of the inputs from the training prompts: (prompts, width)."""
        self.mean.copy_(features.mean(dim=0))
        self.scale.copy_(features.std(dim=0, correction=0).clamp_min(1e-6))

    def forward(self, features: Tensor | None, prompts: int) -> Tensor:
        """(prompts, width) → (prompts, experts) log-weights, normalised."""
        assert features is not None
        assert len(features) == prompts
        logits: Tensor = self.layers((features.float() - self.mean) / self.scale)
        return torch.log_softmax(logits, dim=-1)


Weighting = PriorWeights | Gate
