"""What every kind of mixing weights offers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from mixdpo.errors import ConfigError
from mixdpo.policy.context import Context


class Weighting(nn.Module):
    """log w_k of rows, in two steps: `encode` once a row, then `forward` at each step on encoded rows.

    Attributes:
        needs_features: whether `forward` reads what `encode` gives; False: the weights are the same for all rows.
        sees_prompts: whether the weights change with the prompt.
        annotators: those whom the weights know; None where they do not depend on who compares.
        columns: the metadata that they depend on.
    """

    needs_features = True
    sees_prompts = True
    annotators: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()

    @abstractmethod
    def encode(self, context: Context) -> Tensor:
        """All that the weights depend on: (rows, width), float32."""

    @abstractmethod
    def forward(self, features: Tensor | None, rows: int) -> Tensor:
        """→ (rows, experts) log-weights, normalised, from encoded rows."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """All but the tensors, as JSON; `weighting_from_description` reads it back."""

    def refuse_unseen(self, context: Context) -> None:
        """Raise ConfigError where a caller names what these weights do not depend on, and expects that they do."""
        if context.annotators is not None and self.annotators is None:
            raise ConfigError(
                "this mixture's weights do not depend on the annotator; leave `annotators` out, or use "
                "personalise(comparisons) and pass its result to generate(weights=…)"
            )
        if unseen := sorted(context.metadata.keys() - set(self.columns)):
            seen = f"only on {', '.join(self.columns)}" if self.columns else "on no metadata"
            raise ConfigError(
                f"this mixture's weights depend {seen}, not on {', '.join(unseen)}; leave that out of `metadata`"
            )
