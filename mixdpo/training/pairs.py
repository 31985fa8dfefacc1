"""Preference pairs as the trainer sees them: token rows, who said it, and what the reference thinks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixdpo.errors import DataError
from mixdpo.policy.tokens import TokenRow


@dataclass(frozen=True)
class PreferencePairs:
    """N pairs. The annotator's style is not here, so training cannot see it.

    Raises:
        DataError: a completion is empty, or has no token before it to be predicted from; names the pair.
    """

    ids: list[str]
    chosen: list[TokenRow]
    rejected: list[TokenRow]
    annotators: Tensor  # (pairs,) integer codes
    chosen_reference: Tensor  # (pairs,) summed log-probs under the reference, nats
    rejected_reference: Tensor  # (pairs,)
    features: Tensor  # (pairs, width) what the mixing weights depend on, as `Weighting.encode` gives it
    annotator_names: Sequence[str] = ()  # of each code, where they are known

    def __post_init__(self) -> None:
        for name, side in (("chosen", self.chosen), ("rejected", self.rejected)):
            for place, row in enumerate(side):
                if not row.prompt or not row.completion:
                    raise DataError(
                        f"the {name} row of pair {self.ids[place][:16]} has {len(row.prompt)} tokens of a prompt and "
                        f"{len(row.completion)} of a completion; it needs one of each at least: drop the pair"
                    )

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, places: Sequence[int]) -> list[TokenRow]:
        """Chosen rows of these pairs, then their rejected rows."""
        return [self.chosen[place] for place in places] + [self.rejected[place] for place in places]

    def completion_tokens(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Completion tokens of chosen and rejected: (pairs,) each."""
        sides = [[len(side[place].completion) for place in places] for side in (self.chosen, self.rejected)]
        return torch.tensor(sides[0]), torch.tensor(sides[1])

    def refuse_longer(self, context: int | None) -> None:
        """Raise DataError for a pair of more tokens than a model reads; None: it reads any number."""
        for place, length in enumerate(self.lengths()):
            if context is not None and length > context:
                raise DataError(
                    f"pair {self.ids[place][:16]} has {length} tokens but the model reads at most {context}; lower "
                    f"training.max_tokens, shorten the text or take a model that reads more"
                )

    def lengths(self) -> list[int]:
        """Tokens of each pair's longer row."""
        return [max(len(c), len(r)) for c, r in zip(self.chosen, self.rejected, strict=True)]


def annotator_codes(names: Sequence[str]) -> Tensor:
    """(pairs,) integer codes of annotator names, in order of first appearance."""
    code: dict[str, int] = {}
    return torch.tensor([code.setdefault(name, len(code)) for name in names], dtype=torch.long)
