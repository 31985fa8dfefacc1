"""Many rows under some models, outside training: in batches of a bounded number of tokens, longest first.

Annotators compare the same texts and share prompts: each different row is run once, and rows of one prompt stand side
by side, so that it runs once for all of them in a batch (policy/layout.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mixdpo.errors import DataError
from mixdpo.policy.experts import Experts
from mixdpo.policy.tokens import TokenBatch, TokenRow, length_sorted_batches, pad, refuse_longer

# padded tokens of one forward pass
BATCH_TOKENS = 8192


def score_rows(models: Experts, rows: Sequence[TokenRow], precision: torch.dtype = torch.float32) -> Tensor:
    """log π_k(y|x) of each row under each model: (rows, experts), float32, nats.

    Raises:
        DataError: there are no rows, or one is longer than the models read.
    """
    return _in_batches(models, models, rows, precision)


def prompt_features(models: Experts, rows: Sequence[TokenRow], precision: torch.dtype = torch.float32) -> Tensor:
    """What a gate sees of each row under the first model: (rows, 2·width), float32. Raises as `score_rows`."""
    return _in_batches(models, models.prompt_features, rows, precision)


@torch.inference_mode()
def _in_batches(
    models: Experts, run: Callable[[TokenBatch], Tensor], rows: Sequence[TokenRow], precision: torch.dtype
) -> Tensor:
    """What `run` gives for each row, in the order of the rows; equal rows are run once."""
    if not rows:
        raise DataError("there are no rows to score; give at least one prompt")
    refuse_longer(rows, models.context)
    device = next(models.parameters()).device
    keys = [(tuple(row.prompt), tuple(row.completion)) for row in rows]
    number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    different = [TokenRow(list(prompt), list(completion)) for prompt, completion in number]
    order, parts = [], []
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        for places in prompt_batches(different, BATCH_TOKENS):
            order += places
            parts.append(run(pad([different[place] for place in places], device)))
    results = torch.cat(parts)[torch.tensor(order, device=device).argsort()]
    return results[torch.tensor([number[key] for key in keys], device=device)]


def prompt_batches(rows: Sequence[TokenRow], tokens: int) -> Iterator[list[int]]:
    """Places of rows, those of one prompt together, in batches of at most `tokens` padded tokens (one row at least).

    Prompts come in the order of their longest rows, so that little is padded where a model needs padding.
    """
    return length_sorted_batches([*map(len, rows)], tokens, [tuple(row.prompt) for row in rows])
