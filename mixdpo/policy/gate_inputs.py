"""What a gate sees of a row, as numbers: prompt features, metadata columns, the annotator's code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mixdpo.errors import DataError, ModelError
from mixdpo.policy.context import Context

if TYPE_CHECKING:
    from mixdpo.config.weights import GateWeights

UNKNOWN = 0  # code of an annotator whom the gate has not met

# standard deviations beyond which a number is as far as can be: one odd value must not decide alone
EXTREME = 10.0

# a column with more values than this names things rather than kinds of things
MOST_LEVELS = 1000


@dataclass(frozen=True)
class Numbers:
    """A numeric column: standardised, or 0 and a flag where a row has no number. Width 2.

    Attributes:
        scale: standard deviation in training; 0 where it never varied, and then it says nothing later either.
    """

    name: str
    mean: float
    scale: float
    width = 2

    @classmethod
    def fit(cls, name: str, values: Sequence[float]) -> Numbers:
        numbers = torch.tensor(values, dtype=torch.float64)
        varies = bool((numbers != numbers[0]).any())
        return cls(name, numbers.mean().item(), numbers.std(correction=0).item() if varies else 0.0)

    def encode(self, values: Sequence[Any]) -> Tensor:
        """→ (rows, 2). Raises DataError for what is no number."""
        for value in values:
            if not _is_missing(value) and not _is_number(value):
                raise DataError(f"metadata column {self.name} holds {value!r}, expected a number or None; correct it")
        missing = [_is_missing(value) for value in values]
        numbers = [
            0.0 if gone or not self.scale else max(-EXTREME, min(EXTREME, (value - self.mean) / self.scale))
            for value, gone in zip(values, missing, strict=True)
        ]
        return torch.tensor([numbers, missing], dtype=torch.float32).T


@dataclass(frozen=True)
class Categories:
    """A column of kinds: one-hot over the levels of training, and one more for all other values and none."""

    name: str
    levels: tuple[str, ...]

    @property
    def width(self) -> int:
        return len(self.levels) + 1

    def encode(self, values: Sequence[Any]) -> Tensor:
        """→ (rows, levels + 1)."""
        place = {level: number for number, level in enumerate(self.levels)}
        codes = [len(place) if _is_missing(value) else place.get(_level(value), len(place)) for value in values]
        return torch.nn.functional.one_hot(torch.tensor(codes, dtype=torch.long), self.width).float()


Column = Numbers | Categories


@dataclass(frozen=True)
class GateInputs:
    """Encodes rows for a gate: prompt features as they are, metadata columns, and at last the annotator's code.

    Attributes:
        prompt: width of the prompt features, 0 where the gate does not see the prompt.
        columns: of the metadata.
        annotators: whom the gate knows, code 1 and up in this order; None where it does not see annotators.
    """

    prompt: int
    columns: tuple[Column, ...] = ()
    annotators: tuple[str, ...] | None = None

    @classmethod
    def fit(cls, weights: GateWeights, context: Context) -> GateInputs:
        """What `weights` asks for, with the levels, scales and names of the training rows.

        Raises:
            DataError: a metadata column does not exist, or has nothing to learn from; no annotator compared twice.
        """
        return cls(
            prompt=int(context.prompt_features().shape[-1]) if weights.prompt else 0,
            columns=tuple(_fit_column(name, context) for name in weights.metadata),
            annotators=_known_annotators(context) if weights.annotators else None,
        )

    @property
    def dense(self) -> int:
        """Width of all that is not an annotator's code."""
        return self.prompt + sum(column.width for column in self.columns)

    def encode(self, context: Context) -> Tensor:
        """→ (rows, dense, and 1 for annotators), float32, finite; annotators never met get code `UNKNOWN`.

        Raises:
            ModelError: the prompt features are of another width than those of training.
        """
        parts = []
        if self.prompt:
            features = context.prompt_features().float()
            if features.shape[-1] != self.prompt:
                raise ModelError(
                    f"this gate learned on prompt features of width {self.prompt} but those of this reference have "
                    f"{features.shape[-1]}; use the base model that it was trained with, or train the gate anew"
                )
            parts.append(features)
        rows = [column.encode(context.column(column.name)) for column in self.columns]
        if self.annotators is not None:
            code = {name: place for place, name in enumerate(self.annotators, start=UNKNOWN + 1)}
            names = context.annotators or [None] * len(context)
            codes = [UNKNOWN if name is None else code.get(name, UNKNOWN) for name in names]
            rows.append(torch.tensor(codes, dtype=torch.float32)[:, None])
        device = parts[0].device if parts else torch.device("cpu")
        return torch.cat([*parts, *(part.to(device) for part in rows)], dim=-1)

    def describe(self) -> dict[str, Any]:
        """As JSON; `from_description` reads it back."""
        return {
            "prompt": self.prompt,
            "columns": [{"kind": type(column).__name__.lower(), **asdict(column)} for column in self.columns],
            "annotators": None if self.annotators is None else list(self.annotators),
        }

    @classmethod
    def from_description(cls, about: Mapping[str, Any]) -> GateInputs:
        annotators = about["annotators"]
        return cls(
            prompt=about["prompt"],
            columns=tuple(_read_column(column) for column in about["columns"]),
            annotators=None if annotators is None else tuple(annotators),
        )


def _read_column(about: Mapping[str, Any]) -> Column:
    if about["kind"] == "numbers":
        return Numbers(about["name"], about["mean"], about["scale"])
    return Categories(about["name"], tuple(about["levels"]))


def _fit_column(name: str, context: Context) -> Column:
    if name not in context.metadata:
        there = ", ".join(sorted(context.metadata)) or "none at all"
        raise DataError(
            f"weights.metadata names {name}, but the training pairs have {there}; correct the name, or take the column "
            f"up in preferences.source.columns.metadata"
        )
    values = [value for value in context.metadata[name] if not _is_missing(value)]
    if not values:
        raise DataError(f"metadata column {name} is empty in all training pairs; leave it out of weights.metadata")
    if all(map(_is_number, values)):
        return Numbers.fit(name, values)
    levels = sorted(set(map(_level, values)))
    if len(levels) > MOST_LEVELS:
        raise DataError(
            f"metadata column {name} has {len(levels)} different values, more than the {MOST_LEVELS} that make a "
            f"category; group them, or leave it out of weights.metadata (people belong into the annotator column)"
        )
    return Categories(name, tuple(levels))


def _known_annotators(context: Context) -> tuple[str, ...]:
    pairs: dict[str, int] = {}
    for name in context.annotators or ():
        if name is not None:
            pairs[name] = pairs.get(name, 0) + 1
    if max(pairs.values(), default=0) < 2:
        raise DataError(
            "no annotator of the training pairs made two comparisons, so there is no one to get to know; name the "
            "annotator column in preferences.source.columns, or leave weights.annotators out"
        )
    return tuple(pairs)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _level(value: Any) -> str:
    """One text for one value, as JSON has it."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
