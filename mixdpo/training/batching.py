"""Which pairs make up each step. Pure in (seed, epoch), so that a resumed run sees the same batches."""

from __future__ import annotations

import torch
from torch import Tensor


def epoch_batches(annotators: Tensor, batch_pairs: int, seed: int, epoch: int, together: bool) -> list[list[int]]:
    """Places of pairs for every step of an epoch; each pair comes once.

    Args:
        annotators: (pairs,) integer codes.
        together: keep an annotator's pairs in one batch (method.md §6). Who has more pairs than a batch holds is cut
            into random parts of a batch each, and each part gathers evidence by itself.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(annotators), generator=generator).tolist()
    units: dict[int, list[int]] = {}
    for place in order:
        # dicts keep the order of first appearance in a shuffled list: annotators come shuffled too
        units.setdefault(int(annotators[place]) if together else place, []).append(place)
    batches: list[list[int]] = []
    current: list[int] = []
    for members in units.values():
        for start in range(0, len(members), batch_pairs):
            part = members[start : start + batch_pairs]
            if current and len(current) + len(part) > batch_pairs:
                batches.append(current)
                current = []
            current = current + part
    if current:
        batches.append(current)
    return batches
