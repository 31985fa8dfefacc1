"""Preference pairs as the trainer sees them: token rows, who said it, and what the reference thinks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixdpo.policy.tokens import TokenRow


@dataclass(frozen=True)
class PreferencePairs:
    """N pairs. The annotator's style is not here, so training cannot see it."""

    ids: list[str]
    chosen: list[TokenRow]
    rejected: list[TokenRow]
    annotators: Tensor  # (pairs,) integer codes
    chosen_reference: Tensor  # (pairs,) summed log-probs under the reference, nats
    rejected_reference: Tensor  # (pairs,)
    features: Tensor  # (pairs, width) what the mixing weights depend on, as `Weighting.encode` gives it
    annotator_names: Sequence[str] = ()  # of each code, where they are known

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, places: Sequence[int]) -> list[TokenRow]:
        """Chosen rows of these pairs, then their rejected rows."""
        return [self.chosen[place] for place in places] + [self.rejected[place] for place in places]

    def completion_tokens(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Completion tokens of chosen and rejected: (pairs,) each."""
        sides = [[len(side[place].completion) for place in places] for side in (self.chosen, self.rejected)]
        return torch.tensor(sides[0]), torch.tensor(sides[1])

    def lengths(self) -> list[int]:
        """Tokens of each pair's longer row."""
        return [max(len(c), len(r)) for c, r in zip(self.chosen, self.rejected, strict=True)]


def annotator_codes(names: Sequence[str]) -> Tensor:
    """(pairs,) integer codes of annotator names, in order of first appearance."""
    code: dict[str, int] = {}
    return torch.tensor([code.setdefault(name, len(code)) for name in names], dtype=torch.long)
