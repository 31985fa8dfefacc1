"""params.yaml: how responsibilities come about: symmetry, label noise, tempering, relaxation, sparsity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mixdpo.config.base import Count, Fraction, Natural, Positive, Section


class Noise(Section):
    """Break symmetry with noise on each expert's head (its standard deviations, relative)."""

    kind: Literal["noise"]
    scale: Positive


class Partition(Section):
    """Break symmetry with random responsibilities, drawn once an annotator, for the first steps."""

    kind: Literal["partition"]
    steps: Count


class Anchors(Section):
    """Break symmetry with a few annotators whose expert is known; their responsibilities stay given."""

    kind: Literal["anchors"]
    annotators: dict[str, Natural] = Field(min_length=1)  # annotator -> expert


class NoCure(Section):
    """Leave all experts equal: right for K = 1, and for showing that nothing parts them otherwise."""

    kind: Literal["none"]


Symmetry = Annotated[Noise | Partition | Anchors | NoCure, Field(discriminator="kind")]


class LabelNoise(Section):
    """Annotators err: p = (1 - epsilon) sigma(m) + epsilon sigma(-m) (method.md §6)."""

    # `learned` starts at epsilon; `smoothed` trains the experts on the bound that others call label smoothing
    kind: Literal["fixed", "learned", "smoothed"]
    epsilon: Annotated[float, Field(gt=0, lt=0.5)]
    smoothing: Fraction = 0.95  # of a learned epsilon: share of the old value kept at each step


class Tempering(Section):
    """E-step temperature, falling to 1. Below 1 at the start is refused: measured to ruin recovery."""

    start: Annotated[float, Field(ge=1)]
    steps: Natural
    shape: Literal["linear", "exponential"] = "linear"


class Gumbel(Section):
    """Responsibilities are drawn: softmax((log q + Gumbel noise) / tau), with tau falling to a floor."""

    straight_through: bool  # take the one-hot of the draw
    start: Positive
    floor: Positive
    steps: Count
    shape: Literal["linear", "exponential"]


class Sparsity(Section):
    """Only the strongest experts take part, renormalised; the mass that is dropped is logged."""

    top: Count
    by: Literal["weights", "responsibilities"]
