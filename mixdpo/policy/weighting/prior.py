"""One prior over experts for all rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mixdpo.policy.context import Context
from mixdpo.policy.weighting.base import Weighting


class PriorWeights(Weighting):
    """The same weights for every row: `fixed`, or `global` where the trainer updates them in closed form."""

    needs_features = False
    sees_prompts = False
    log_weights: Tensor  # (experts,)

    def __init__(self, log_weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.log_softmax(log_weights.float(), dim=-1))

    @classmethod
    def uniform(cls, experts: int) -> PriorWeights:
        return cls(torch.zeros(experts))

    def encode(self, context: Context) -> Tensor:
        return torch.empty(len(context), 0)

    def forward(self, features: Tensor | None, rows: int) -> Tensor:  # noqa: ARG002 (as a gate is called)
        return self.log_weights.expand(rows, -1)

    def describe(self) -> dict[str, Any]:
        return {"kind": "prior"}
