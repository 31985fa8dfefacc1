"""Blocks of the vocabulary: where they are, what is gathered over them, and what of them is kept for later."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# numbers in a block: what a processor's cache holds, and what keeps a GPU busy
CPU_BLOCK, GPU_BLOCK = 1 << 19, 1 << 26
# a product of fewer columns is a slow one
NARROWEST = 512
# and so is one whose rows do not begin where a processor's vectors and cache lines do: up to a third slower
ALIGNED = 64
LOG2_E = math.log2(math.e)


class Block(NamedTuple):
    """A part of the vocabulary."""

    place: int
    span: slice
    local: Tensor  # (tokens, 1) each target's place in the block, or any place
    inside: Tensor  # (tokens, 1) whether the target is in the block

    @property
    def width(self) -> int:
        return int(self.span.stop - self.span.start)


def blocks_of(target: Tensor, vocabulary: int) -> list[Block]:
    numbers = CPU_BLOCK if target.device.type == "cpu" else GPU_BLOCK
    width = max(NARROWEST, numbers // max(1, len(target)) // ALIGNED * ALIGNED)
    blocks = []
    for place, start in enumerate(range(0, vocabulary, width)):
        stop = min(start + width, vocabulary)
        local = (target - start)[:, None]
        inside = (local >= 0) & (local < stop - start)
        blocks.append(Block(place, slice(start, stop), local.clamp(0, stop - start - 1), inside))
    return blocks


class Room:
    """One place for the numbers of a block, written over from product to product: it stays in the cache."""

    def __init__(self, blocks: list[Block], hidden: Tensor) -> None:
        self.size = len(hidden) * max(block.width for block in blocks)
        self.hidden = hidden
        self.places: dict[torch.dtype, Tensor] = {}

    def of(self, rows: int, block: Block, dtype: torch.dtype) -> Tensor:
        if dtype not in self.places:
            self.places[dtype] = self.hidden.new_empty(self.size, dtype=dtype)
        return self.places[dtype][: rows * block.width].view(rows, block.width)


class Seen:
    """The targets' logits and the normalisers, gathered block by block: (tokens, experts) each."""

    def __init__(self, blocks: list[Block], experts: int, hidden: Tensor) -> None:
        self.wide = torch.promote_types(hidden.dtype, torch.float32)
        self.picked = hidden.new_zeros((len(hidden), experts), dtype=self.wide)
        self.parts = hidden.new_empty((len(blocks), len(hidden), experts), dtype=self.wide)

    def add(self, block: Block, expert: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Take a block's logits in and write over them; exp(logits − top) and top, (tokens, block) and (tokens, 1)."""
        found = logits.gather(1, block.local).to(self.wide)
        self.picked[:, expert] += torch.where(block.inside, found, 0.0)[:, 0]
        top = logits.amax(dim=1, keepdim=True).to(self.wide)
        powers = exp_(torch.sub(logits, top, out=logits if logits.dtype == self.wide else None))
        self.parts[block.place, :, expert] = powers.sum(dim=1).log_().add_(top[:, 0])
        return powers, top

    def close(self) -> tuple[Tensor, Tensor]:
        return self.picked, self.parts.logsumexp(dim=0)


class Kept:
    """What waits for the backward pass, as long as there is room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tensors: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def offer(self, block: Block, expert: int, *tensors: Tensor) -> None:
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self.room:
            self.room -= size
            self.tensors[block.place, expert] = tensors

    def take(self, block: Block, expert: int) -> tuple[Tensor, ...] | None:
        """What was kept, for once: it may be written over."""
        return self.tensors.pop((block.place, expert), None)


def exp_(exponents: Tensor) -> Tensor:
    """exp, written over its argument. On a processor torch's power of two takes a third of the time of its exp."""
    return exponents.mul_(LOG2_E).exp2_()
