"""params.yaml: the mixing weights w_k, from one prior for all to a gate that knows prompt and annotator."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixdpo.config.base import Count, Fraction, Name, Natural, NonNegative, Positive, Section


class FixedWeights(Section):
    """The same prior over experts for every prompt, never learned."""

    kind: Literal["fixed"]
    values: tuple[Positive, ...] | None  # one an expert, normalised; null: uniform


class GlobalWeights(Section):
    """One learned prior: w <- (sum q + alpha - 1) / (N + K (alpha - 1)), smoothed over steps (method.md §3)."""

    kind: Literal["global"]
    alpha: Annotated[float, Field(ge=1)]  # Dirichlet prior; 1 is none, above 1 keeps every expert in use
    smoothing: Fraction  # share of the old weights kept at each step


class Balance(Section):
    """Push the mean of the gate's weights towards uniform; the push falls linearly to nothing over `steps`."""

    strength: NonNegative
    steps: Count


class AnnotatorEmbedding(Section):
    """The gate also sees who annotates: a learned vector each, and one for whoever it has not met."""

    width: Count
    unknown: Fraction  # share of training pairs shown as from an unknown annotator, so that its vector learns


class GateWeights(Section):
    """w_k(x, u): a network on the prompt under the frozen reference and, if asked, on the annotator and metadata."""

    kind: Literal["gate"]
    hidden: Natural  # width of its hidden layer; 0: linear
    entropy: NonNegative  # lambda_ent: how much its entropy is rewarded
    # uniform and untrained until the experts differ: before, it would learn noise and hold on to it
    rest_steps: Natural
    learning_rate: Positive
    frozen: bool = False  # keep it as it starts: uniform, or as in the mixture that `start` names
    prompt: bool = True  # whether it sees the prompt
    annotators: AnnotatorEmbedding | None = None
    metadata: tuple[str, ...] = ()  # columns of the pairs' metadata, numbers or categories; `domain` is one
    balance: Balance | None = None
    floor: Fraction = 0.0  # least weight of an expert, times K: w = floor / K + (1 - floor) softmax

    @model_validator(mode="after")
    def _sees_something(self) -> GateWeights:
        if not (self.prompt or self.annotators or self.metadata):
            raise ValueError("a gate that sees neither prompt, annotators nor metadata; use weights of kind global")
        return self


class RandomWeights(Section):
    """A heuristic to compare with: each prompt leans to one expert, drawn by a hash of its text."""

    kind: Literal["random"]
    confidence: Annotated[float, Field(gt=0, lt=1)]  # weight of that expert; the others share the rest


class DomainWeights(Section):
    """A heuristic to compare with: each domain leans to the experts that it is given."""

    kind: Literal["domain"]
    experts: dict[Name, Natural] = Field(min_length=1)  # the expert of each domain; an unlisted domain is uniform
    confidence: Annotated[float, Field(gt=0, lt=1)]


Weights = Annotated[
    FixedWeights | GlobalWeights | GateWeights | RandomWeights | DomainWeights, Field(discriminator="kind")
]
