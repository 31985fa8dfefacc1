"""Where the tokens of rows lie when they stand one after another, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Rows in one line. Tokens with which an earlier row, the owner, begins as well stand there once.

    What a body makes of a token depends on the tokens before it alone, so rows with one beginning share its states.

    Attributes:
        lengths: tokens of each row, those that it shares included.
        owners: the earlier row that has a row's first tokens; the row itself where it shares none.
        shared: how many these are. A row keeps one token of its own at least.
    """

    lengths: list[int]
    owners: list[int]
    shared: list[int]

    @classmethod
    def apart(cls, lengths: Sequence[int]) -> Layout:
        """Rows that share nothing."""
        return cls(list(lengths), list(range(len(lengths))), [0] * len(lengths))

    @classmethod
    def of(cls, beginnings: Sequence[Sequence[int]], lengths: Sequence[int]) -> Layout:
        """Rows that share equal beginnings.

        Args:
            beginnings: token ids of each row's first tokens.
        """
        first: dict[tuple[int, ...], int] = {}
        owners, shared = [], []
        for row, (beginning, length) in enumerate(zip(beginnings, lengths, strict=True)):
            key = tuple(beginning)
            shares = len(key) < length and first.setdefault(key, row) != row
            owners.append(first[key] if shares else row)
            shared.append(len(key) if shares else 0)
        return cls(list(lengths), owners, shared)

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def positions(self) -> int:
        """Tokens of the longest row."""
        return max(self.lengths)

    @cached_property
    def own(self) -> list[int]:
        """How many tokens of the line are each row's."""
        return [length - shared for length, shared in zip(self.lengths, self.shared, strict=True)]

    @cached_property
    def places(self) -> Tensor:
        """Where each row's tokens stand in the line: (rows, positions); 0 beyond a row's end."""
        places = torch.zeros((self.rows, self.positions), dtype=torch.long)
        start = 0
        for row, (length, owner, shared) in enumerate(zip(self.lengths, self.owners, self.shared, strict=True)):
            places[row, :shared] = places[owner, :shared]
            places[row, shared:length] = torch.arange(start, start + length - shared)
            start += length - shared
        return places

    @cached_property
    def flat(self) -> Tensor:
        """Row · positions + position of each token of the line: (tokens,)."""
        spans = zip(range(self.rows), self.shared, self.lengths, strict=True)
        return torch.cat([torch.arange(shared, length) + row * self.positions for row, shared, length in spans])
