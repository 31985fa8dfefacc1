"""A batch through the experts, there and back.

The loss of a step is a function of the [pairs, experts] log-probs alone, so a step is three parts: the log-probs
(`forward`), the loss and its gradient in them (`Run.step`), and the way back of that gradient into the parameters
(`backward`). What lies between the first and the last needs all pairs and all experts; they themselves do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mixdpo.policy.tokens import pad
from mixdpo.training.states import TrunkStates

if TYPE_CHECKING:
    from mixdpo.policy.experts import Experts
    from mixdpo.training.pairs import PreferencePairs


class Passes:
    """Forward and backward passes of one batch after another."""

    def __init__(
        self,
        experts: Experts,
        pairs: PreferencePairs,
        tile_tokens: int,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        states: TrunkStates | None = None,
    ) -> None:
        """Args: states: of these pairs' rows among others, where the trunk is frozen."""
        self.experts, self.pairs, self.tile_tokens = experts, pairs, tile_tokens
        self.device, self.precision, self.states = device, precision, states
        self._logps: Tensor | None = None

    def forward(self, places: Sequence[int]) -> Tensor:
        """log π_k(y|x) of these pairs' chosen rows, then of their rejected ones: (2·pairs, experts), float32, nats.

        The result is a leaf: its gradient is what `backward` takes.
        """
        rows = self.pairs.rows(places)
        known = {} if self.states is None else {"states_CD": self.states(rows)}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            self._logps = self.experts(pad(rows, self.device), self.tile_tokens, **known)
        return self._logps.detach().requires_grad_()

    def backward(self, gradient: Tensor) -> None:
        """Add to the gradients of the experts' parameters what this gradient in the last log-probs makes of them.

        Args:
            gradient: of the shape that `forward` returned.
        """
        logps, self._logps = self._logps, None
        if logps is not None and logps.requires_grad:  # all experts may be frozen
            logps.backward(gradient)
