"""Weights that nobody learns, for comparison: each row leans to one expert, by its text or by its domain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mixdpo.policy.context import Context, hashed_unit
from mixdpo.policy.weighting.base import Weighting

NO_LEANING = -1


class LeaningWeights(Weighting):
    """Weight `confidence` for one expert, the rest in equal shares for the others."""

    kind: str

    def __init__(self, experts: int, confidence: float) -> None:
        super().__init__()
        self.experts, self.confidence = experts, confidence

    @abstractmethod
    def leaning(self, features: Tensor) -> Tensor:
        """Encoded rows (rows, 1) → the expert that each leans to (rows,), `NO_LEANING` where to none."""

    def forward(self, features: Tensor | None, rows: int) -> Tensor:
        assert features is not None
        assert len(features) == rows
        expert = self.leaning(features)[:, None]
        others = (1 - self.confidence) / max(self.experts - 1, 1)
        shares = torch.where(torch.arange(self.experts, device=features.device) == expert, self.confidence, others)
        return shares.log().log_softmax(dim=-1)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "confidence": self.confidence}


class RandomWeights(LeaningWeights):
    """Each prompt leans to an expert that a hash of its text draws."""

    kind = "random"

    def encode(self, context: Context) -> Tensor:
        return torch.tensor([hashed_unit(prompt, "expert") for prompt in context.prompts])[:, None]

    def leaning(self, features: Tensor) -> Tensor:
        return (features[:, 0] * self.experts).long()


class DomainWeights(LeaningWeights):
    """Each domain leans to the expert that a table gives it; a domain that is unknown or not listed to none."""

    kind = "domain"
    sees_prompts = False
    columns = ("domain",)

    def __init__(self, experts: int, confidence: float, table: Mapping[str, int]) -> None:
        super().__init__(experts, confidence)
        self.table = dict(table)

    def encode(self, context: Context) -> Tensor:
        experts = [self.table.get(domain, NO_LEANING) for domain in context.column("domain")]
        return torch.tensor(experts, dtype=torch.float32)[:, None]

    def leaning(self, features: Tensor) -> Tensor:
        return features[:, 0].long()

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"experts": self.table}
