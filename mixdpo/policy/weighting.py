"""Mixing weights w_k(x): fixed, one learned prior for all, or a gate on prompt features (method.md §4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PriorWeights(nn.Module):
    """The same weights for every prompt: `fixed`, or `global` where the trainer updates them in closed form."""

    needs_features = False

    def __init__(self, log_weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.log_softmax(log_weights.float(), dim=-1))

    @classmethod
    def uniform(cls, experts: int) -> PriorWeights:
        return cls(torch.zeros(experts))

    def forward(self, features: Tensor | None, prompts: int) -> Tensor:
        """→ (prompts, experts) log-weights, normalised."""
        weights: Tensor = self.log_weights
        return weights.expand(prompts, -1)


class Gate(nn.Module):
    """log w(x) = log-softmax of a linear map, or of one hidden layer, on standardised prompt features."""

    needs_features = True

    def __init__(self, width: int, experts: int, hidden: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        layers: list[nn.Module] = [nn.Linear(width, experts)]
        if hidden:
            layers = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, experts)]
            with torch.no_grad():
                first = layers[0].weight
                first.copy_(torch.randn(first.shape, generator=generator) / width**0.5)
                layers[0].bias.zero_()
        self.layers = nn.Sequential(*layers)
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        # uniform weights at the start: before the experts differ, the gate has nothing to say
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Fix mean and scale of the inputs from the training prompts: (prompts, width)."""
        mean, scale = self.mean, self.scale
        assert isinstance(mean, Tensor)
        assert isinstance(scale, Tensor)
        mean.copy_(features.mean(dim=0))
        scale.copy_(features.std(dim=0, correction=0).clamp_min(1e-6))

    def forward(self, features: Tensor | None, prompts: int) -> Tensor:
        """(prompts, width) → (prompts, experts) log-weights, normalised."""
        assert features is not None
        assert len(features) == prompts
        logits: Tensor = self.layers((features.float() - self.mean) / self.scale)
        return torch.log_softmax(logits, dim=-1)


Weighting = PriorWeights | Gate
