"""params.yaml: expert policies, their mixing weights, and the training by variational EM."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixdpo.config.base import Count, Fraction, Natural, NonNegative, Positive, Section


class SharedTrunk(Section):
    """Case 1 (Mix-DPO): one transformer, an output head for each expert."""

    kind: Literal["shared"]
    head: Literal["linear", "lowrank"]
    rank: Count | None  # of a lowrank head; null for linear
    trunk: Literal["trainable", "frozen"]

    @model_validator(mode="after")
    def _rank_fits_head(self) -> SharedTrunk:
        if (self.head == "lowrank") != (self.rank is not None):
            raise ValueError(f"head {self.head} with rank {self.rank}: lowrank needs a rank, linear takes null")
        return self


class Independent(Section):
    """Case 2 (MoE-DPO): K whole models."""

    kind: Literal["independent"]


class FixedWeights(Section):
    """The same prior over experts for every prompt, never learned."""

    kind: Literal["fixed"]
    values: tuple[Positive, ...] | None  # one an expert, normalised; null: uniform


class GlobalWeights(Section):
    """One learned prior: w <- (sum q + alpha - 1) / (N + K (alpha - 1)), smoothed over steps (method.md §3)."""

    kind: Literal["global"]
    alpha: Annotated[float, Field(ge=1)]  # Dirichlet prior; 1 is none
    smoothing: Fraction  # share of the old weights kept at each step


class GateWeights(Section):
    """w_k(x): a network on the mean hidden state of the prompt under the frozen reference."""

    kind: Literal["gate"]
    hidden: Natural  # width of its hidden layer; 0: linear
    entropy: NonNegative  # lambda_ent: how much its entropy is rewarded
    # uniform and untrained until the experts differ: before, it would learn noise and hold on to it
    rest_steps: Natural
    learning_rate: Positive


Weights = Annotated[FixedWeights | GlobalWeights | GateWeights, Field(discriminator="kind")]


class Noise(Section):
    """Break symmetry with noise on each expert's head (its standard deviations, relative)."""

    kind: Literal["noise"]
    scale: Positive


class Partition(Section):
    """Break symmetry with random responsibilities, drawn once an annotator, for the first steps."""

    kind: Literal["partition"]
    steps: Count


class NoCure(Section):
    """Leave all experts equal: right for K = 1, and for showing that nothing parts them otherwise."""

    kind: Literal["none"]


Symmetry = Annotated[Noise | Partition | NoCure, Field(discriminator="kind")]


class Policy(Section):
    experts: Count
    architecture: Annotated[SharedTrunk | Independent, Field(discriminator="kind")]
    weights: Weights
    latent: Literal["pair", "annotator"]  # what shares one expert (method.md §6)
    symmetry: Symmetry

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        if isinstance(self.weights, FixedWeights) and self.weights.values is not None:
            given = len(self.weights.values)
            if given != self.experts:
                raise ValueError(f"weights has {given} values but experts is {self.experts}; give one an expert")
        if isinstance(self.weights, GateWeights) and self.experts == 1:
            raise ValueError("a gate over one expert has nothing to choose; use weights of kind fixed")
        return self


class Tempering(Section):
    """E-step temperature, falling linearly to 1. Below 1 at the start is refused: measured to ruin recovery."""

    start: Annotated[float, Field(ge=1)]
    steps: Natural


class Training(Section):
    beta: Positive
    epochs: Count
    batch_pairs: Count  # pairs a step; an annotator's pairs stay together as far as they fit
    learning_rate: Positive
    warmup: Fraction  # of all steps
    weight_decay: NonNegative
    clip: Positive  # norm of the gradient
    tempering: Tempering
    tile_tokens: Count  # completion tokens under the heads at once; bounds memory, never changes the result
    max_tokens: Count  # of prompt and completion; a longer pair is refused
    evaluate_every: Count  # steps between looks at the validation pairs
    checkpoint_every: Count  # steps


class Evaluation(Section):
    samples_per_prompt: Count
    bootstrap: Annotated[int, Field(ge=100)]
    examples: Natural  # prompts shown with everyone's completion in the report


class Registry(Section):
    url: str | None  # a directory; null: $MIXDPO_REGISTRY, else the user's own data directory
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    policy: str
    alias: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
