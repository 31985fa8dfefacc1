"""Texts of different lengths in batches that waste little on padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def budgeted_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Places in order of length, longest first, in batches of at most `batch_tokens` tokens, padding included.

    Longest first, so that memory runs out at once or never. A text longer than the budget makes a batch by itself.
    """
    batches: list[list[int]] = []
    width = 0
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if batches and (len(batches[-1]) + 1) * width <= batch_tokens:
            batches[-1].append(place)
        else:
            batches.append([place])
            width = lengths[place]
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
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids.to(device), mask.to(device)
