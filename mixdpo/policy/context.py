"""What mixing weights may depend on: the prompts, who compares, and what else is known of each row."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mixdpo.errors import DataError


@dataclass(frozen=True)
class Context:
    """R rows that ask for weights.

    Attributes:
        prompts: their texts.
        prompt_features: gives (rows, width) of the prompts under the frozen reference; called only where needed.
        annotators: who makes each comparison, None where nobody knows who.
        metadata: columns by name, `domain` among them; None in a column where a row has no value.

    Raises:
        DataError: a column has another length than the prompts.
    """

    prompts: Sequence[str]
    prompt_features: Callable[[], Tensor]
    annotators: Sequence[str | None] | None = None
    metadata: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = {f"metadata column {name}": values for name, values in self.metadata.items()}
        if self.annotators is not None:
            columns["annotators"] = self.annotators
        for name, values in columns.items():
            # a text is a sequence of letters, so its length may fit by chance
            if isinstance(values, str):
                raise DataError(f"{name} is one text, {values!r}; give a list with one a prompt")
            if len(values) != len(self):
                raise DataError(f"{name}: {len(values)} values for {len(self)} prompts; give one a prompt")

    def __len__(self) -> int:
        return len(self.prompts)

    def column(self, name: str) -> Sequence[Any]:
        """Values of a metadata column, None in all rows where it was not given."""
        return self.metadata.get(name, [None] * len(self))

    def with_strangers(self, ids: Sequence[str], share: float) -> Context:
        """The same rows, a share of them by nobody known: which ones depends on their ids alone."""
        if self.annotators is None:
            return self
        annotators = [
            None if hashed_unit(row, "stranger") < share else name
            for row, name in zip(ids, self.annotators, strict=True)
        ]
        return dataclasses.replace(self, annotators=annotators)


def hashed_unit(text: str, salt: str) -> float:
    """A number in [0, 1) that depends on `text` and `salt` alone, of 24 bits so that float32 holds it exactly."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{text}".encode()).digest()[:3], "big") / 2**24
