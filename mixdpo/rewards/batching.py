"""Texts of different lengths in batches that waste little on padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

# what another batch costs, in tokens: launches against padding (docs/performance.md)
BATCH_COST = {"cpu": 256, "cuda": 8192}
LARGE_BATCH_COST = 32  # on a processor, under a model whose products cost more than all else
# more at once gains nothing on a processor and takes memory
CPU_TOKENS = 4096


def budgeted_batches(
    lengths: Sequence[int], batch_tokens: int, device: str = "cpu", large: bool = False
) -> list[list[int]]:
    """Places in order of length, longest first, in batches of at most `batch_tokens` tokens, padding included.

    Longest first, so that memory runs out at once or never. A batch ends, too, where its padding would cost more than
    another batch. A text longer than the budget makes a batch by itself.

    Args:
        large: whether products cost this model more than all else, so that a batch more is little.
    """
    most = min(batch_tokens, CPU_TOKENS) if device == "cpu" else batch_tokens
    cost = LARGE_BATCH_COST if large and device == "cpu" else BATCH_COST[device]
    batches: list[list[int]] = []
    width = padding = 0
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        padding += width - lengths[place]
        if batches and (len(batches[-1]) + 1) * width <= most and padding <= cost:
            batches[-1].append(place)
        else:
            batches.append([place])
            width, padding = lengths[place], 0
    return batches


def shuffled_batches(lengths: Sequence[int], batch: int, generator: torch.Generator) -> list[list[int]]:
    """Batches of `batch` places for an epoch, in random order, each of texts of about one length.

    Lengths are sorted within random groups of some batches only, so that company changes from epoch to epoch.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    group = 16 * batch
    sorted_groups = [
        sorted(order[start : start + group], key=lambda place: lengths[place]) for start in range(0, len(order), group)
    ]
    batches = [places[start : start + batch] for places in sorted_groups for start in range(0, len(places), batch)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def pad(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (rows, longest), padded on the right."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, padding, np.int64)
    ids[real] = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    return torch.from_numpy(ids).to(device), torch.from_numpy(real.astype(np.int64)).to(device)
