"""params.yaml: the training by variational EM that all policies share."""

from __future__ import annotations

from mixdpo.config.base import Count, Fraction, Natural, NonNegative, Positive, Section
from mixdpo.config.estep import Tempering


class Parallel(Section):
    """data x experts processes that train one policy together (docs/scaling.md)."""

    data: Count  # that share the pairs of each step
    experts: Count  # that share the experts; where a policy has fewer experts, more share the pairs
    shard: bool = False  # spread a transformer body's parameters over all that train it (FSDP2)
    timeout_seconds: Count = 600  # for which they wait for each other
    restarts: Natural = 0  # after a process was lost; training goes on from its last checkpoint


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
    # the most that a step may take, weights, gradients and moments included; null: what the device has. Steps that
    # would take more run layers twice or go in pieces, which changes nothing but time
    memory_gib: Positive | None = None
    parallel: Parallel | None = None  # none: one process
