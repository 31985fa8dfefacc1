"""Writing with transformers' own cache, for bodies that slots do not fit (windows, biases, other attention).

Rows are padded on the left and start together: the cache knows one length for all, so nobody joins while others write.
A prompt that several rows have is run once, as in slots.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mixdpo.policy.slots import SlotDecoder, distinct, fits


class BatchDecoder:
    """Some rows of one trunk that began together; the interface of `SlotDecoder`.

    Args:
        slots: how many rows it holds at once.
    """

    def __init__(self, trunk: PreTrainedModel, slots: int) -> None:
        self.trunk = trunk
        self.slots = slots
        self.mask = torch.empty((0, 0), dtype=torch.long, device=trunk.device)
        self.position = self.mask  # (rows, new tokens)
        self.cache: Any = None

    @property
    def room(self) -> int:
        """How many rows it would take now."""
        return 0 if len(self.mask) else self.slots

    def step(self, tokens: Tensor, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See `SlotDecoder.step`; new rows only where there are no others."""
        different, which = distinct(prompts)
        if prompts:
            width = max(map(len, different))
            padding = [width - len(prompt) for prompt in different]
            ids = torch.tensor([[0] * left + list(row) for left, row in zip(padding, different, strict=True)])
            self.mask = (torch.arange(width) >= torch.tensor(padding)[:, None]).long().to(tokens.device)
            # positions count from each row's own first token
            self.position = (self.mask.cumsum(dim=-1) - 1).clamp_min(0)
            self.cache = None
        else:
            ids = tokens[:, None]
            self.mask = torch.cat([self.mask, self.mask.new_ones((len(self.mask), 1))], dim=-1)
            self.position = self.position[:, -1:] + 1
        out = self.trunk(
            input_ids=ids.to(tokens.device),
            attention_mask=self.mask,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = out.past_key_values
        last: Tensor = out.last_hidden_state[:, -1]
        if len(different) < len(prompts):
            self.keep(which)
            last = last[which]
        return last

    def keep(self, order: Sequence[int]) -> None:
        """See `SlotDecoder.keep`."""
        rows = torch.tensor(order, dtype=torch.long, device=self.mask.device)
        self.mask, self.position = self.mask[rows], self.position[rows]
        if order:
            self.cache.batch_select_indices(rows)


Decoder = SlotDecoder | BatchDecoder


def open_decoder(trunk: PreTrainedModel, slots: int, positions: int) -> Decoder:
    """Slots where the body fits them, whole batches otherwise.

    Args:
        slots: how many rows at once.
        positions: how many tokens a row may have, prompt included.
    """
    return SlotDecoder(trunk, slots, positions) if fits(trunk) else BatchDecoder(trunk, slots)
