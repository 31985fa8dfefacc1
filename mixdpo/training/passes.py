"""A batch through the experts, there and back.

The loss of a step is a function of the [pairs, experts] log-probs alone, so a step is three parts: the log-probs
(`forward`), the loss and its gradient in them (`Run.step`), and the way back of that gradient into the parameters
(`backward`). What lies between the first and the last needs all pairs and all experts; they themselves do not. So
whatever was run without keeping what the way back needs, because memory is short or because an expert was likely to
have no responsibility, is run again there, if its gradient is not 0 (as GradCache does: arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mixdpo.policy.experts import Experts, IndependentExperts, SharedTrunk
from mixdpo.policy.tokens import TokenRow, pad
from mixdpo.training.fit import Fit

if TYPE_CHECKING:
    from mixdpo.training.pairs import PreferencePairs


class _Passed(NamedTuple):
    """Some pairs that went through one model."""

    model: SharedTrunk
    columns: slice  # of its experts
    pairs: Tensor  # places in the batch
    logps: Tensor  # (2·pairs, columns)


class Passes:
    """Forward and backward passes of one batch after another."""

    def __init__(
        self,
        experts: Experts,
        pairs: PreferencePairs,
        fit: Fit,
        tile_tokens: int,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        states: Callable[[Sequence[TokenRow]], Tensor] | None = None,
        together: bool = False,
    ) -> None:
        """Args:
        states: gives those of rows, where the experts are not to compute them.
        together: no way back is left out, because other processes go it at the same time.
        """
        self.experts, self.pairs, self.fit, self.tile_tokens = experts, pairs, fit, tile_tokens
        self.device, self.precision, self.states, self.together = device, precision, states, together
        self._places: Sequence[int] = []
        self._passed: list[_Passed] = []

    def forward(self, places: Sequence[int], likely: Tensor | None = None) -> Tensor:
        """log π_k(y|x) of these pairs' chosen rows, then of their rejected ones: (2·pairs, experts), float32, nats.

        The result is a leaf: its gradient is what `backward` takes.

        Args:
            likely: (pairs, experts), which experts are expected to have responsibility; None: all. Others keep nothing
                for the way back where experts are models of their own.
        """
        self._places, self._passed = places, []
        way = self.fit.way(places)
        result = torch.zeros((2 * len(places), self.experts.experts), device=self.device)
        for model, columns in self.experts.parts():
            for piece in way.pieces:
                for pairs, keep in _parted(torch.tensor(piece), likely, columns, self.experts):
                    logps = self._run(model, pairs, keep and way.whole, way.recompute)
                    result[self._rows(pairs), columns] = logps.detach()
                    self._passed.append(_Passed(model, columns, pairs, logps))
        return result.requires_grad_()

    def backward(self, gradient: Tensor) -> None:
        """Add to the gradients of the experts' parameters what this gradient in the last log-probs makes of them.

        Args:
            gradient: of the shape that `forward` returned.
        """
        while self._passed:
            model, columns, pairs, logps = self._passed.pop()
            part = gradient[self._rows(pairs), columns]
            if logps.requires_grad:
                if self.together or part.any():
                    logps.backward(part)
            elif any(parameter.requires_grad for parameter in model.parameters()):
                self._again(model, columns, pairs[part.view(2, len(pairs), -1).any(dim=-1).any(dim=0).cpu()], gradient)

    def _again(self, model: SharedTrunk, columns: slice, pairs: Tensor, gradient: Tensor) -> None:
        """The way back of pairs that kept nothing."""
        if not len(pairs):
            return
        way = self.fit.way([self._places[pair] for pair in pairs.tolist()], models=1)
        for piece in way.pieces:
            logps = self._run(model, pairs[piece], True, way.recompute)
            logps.backward(gradient[self._rows(pairs[piece]), columns])

    def _run(self, model: SharedTrunk, pairs: Tensor, keep: bool, recompute: bool) -> Tensor:
        rows = self.pairs.rows([self._places[pair] for pair in pairs.tolist()])
        known = None if self.states is None else self.states(rows)
        mixed = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)
        with torch.set_grad_enabled(keep), mixed:
            logps: Tensor = model(pad(rows, self.device), self.tile_tokens, known, recompute and keep)
        return logps

    def _rows(self, pairs: Tensor) -> Tensor:
        """Of the batch's log-probs: the pairs' chosen rows, then their rejected ones."""
        return torch.cat([pairs, pairs + len(self._places)]).to(self.device)


def _parted(pairs: Tensor, likely: Tensor | None, columns: slice, experts: Experts) -> Iterator[tuple[Tensor, bool]]:
    """These pairs, those for which some of a model's experts are likely apart from the others."""
    if likely is None or not isinstance(experts, IndependentExperts):
        yield pairs, True
        return
    keep = likely.cpu()[pairs, columns].any(dim=1)
    for part, kept in ((pairs[keep], True), (pairs[~keep], False)):
        if len(part):
            yield part, kept
