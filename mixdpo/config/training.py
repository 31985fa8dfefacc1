"""params.yaml: the training by variational EM that all policies share."""

from __future__ import annotations

from mixdpo.config.base import Count, Fraction, NonNegative, Positive, Section
from mixdpo.config.estep import Tempering


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
