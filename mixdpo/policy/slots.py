"""A trunk that writes many rows at once, each in a slot of a key-value cache that is made once.

A row that has ended gives its slot to the next prompt. As in packing.py, all tokens of a step lie in one packed row:
one of every row that goes on, then the prompts of new rows, which thus cost no pass of their own. Attention writes a
token's key and value to its row's slot, at the row's own position, and looks no further than the longest row. A prompt
that several new rows have is run in the slot of the first of them, and copied from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from mixdpo.policy.packing import CannotPackError, refuse_foreign

NAME = "mixdpo_slots"


@dataclass(frozen=True)
class Step:
    """What one pass holds, and where it goes."""

    slot: Tensor  # (tokens,)
    position: Tensor  # (tokens,)
    going: int  # rows that go on: the first tokens, in slots 0 …
    width: int  # positions of the longest of them
    mask: Tensor | None  # (going, 1, 1, width) 0 or −∞; None where all are equally long
    new: Tensor  # (prompts,) slots that new prompts are run in
    longest: int  # tokens of the longest new prompt
    flat: Tensor  # (prompt tokens,) prompt · longest + position


class SlotDecoder:
    """Some rows of one trunk, in slots 0 … rows − 1.

    Args:
        slots: how many rows it holds at once.
        positions: how many tokens each may have.
    """

    def __init__(self, trunk: PreTrainedModel, slots: int, positions: int) -> None:
        self.trunk = trunk
        self.slots = slots
        self.positions = positions
        self.lengths: list[int] = []  # tokens of each row in the cache
        self.cache: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # of each attention: (slots, heads, positions, width)

    @property
    def room(self) -> int:
        """How many rows it would take now."""
        return self.slots - len(self.lengths)

    def step(self, tokens: Tensor, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Feed every row its next token and take new rows in; → state at each row's last token (rows, width).

        Args:
            tokens: (rows,) of those that it holds.
            prompts: token ids of new rows, which come after those.
        """
        device, going = tokens.device, len(self.lengths)
        different, which = distinct(prompts)
        sizes = [len(prompt) for prompt in different]
        longest = max(sizes, default=0)
        first: list[int] = []  # slot of each
        for slot, prompt in enumerate(which, going):
            if prompt == len(first):
                first.append(slot)
        positions = self.lengths + [place for size in sizes for place in range(size)]
        slots = [*range(going), *(slot for slot, size in zip(first, sizes, strict=True) for _ in range(size))]
        flat = [prompt * longest + place for prompt, size in enumerate(sizes) for place in range(size)]
        read = torch.tensor([token for prompt in different for token in prompt], device=device)
        ids = torch.cat([tokens, read.long()])
        position = torch.tensor(positions, device=device)
        width = max(self.lengths, default=0) + 1
        mask = None
        if going and min(self.lengths) + 1 < width:
            seen = torch.arange(width, device=device) <= position[:going, None]
            mask = torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))[:, None, None]
        step = Step(
            slot=torch.tensor(slots, device=device),
            position=position,
            going=going,
            width=width,
            mask=mask,
            new=torch.tensor(first, device=device),
            longest=longest,
            flat=torch.tensor(flat, device=device, dtype=torch.long),
        )
        with self._attention(step):
            out = self.trunk(input_ids=ids[None], position_ids=position[None], use_cache=False)
        states: Tensor = out.last_hidden_state[0]
        self.lengths = [length + 1 for length in self.lengths] + [sizes[prompt] for prompt in which]
        if not prompts:
            return states
        self._copy([(first[prompt], slot) for slot, prompt in enumerate(which, going) if first[prompt] != slot])
        ends = [going - 1 + end for end in accumulate(sizes)]
        return states[torch.tensor([*range(going), *(ends[prompt] for prompt in which)], device=device)]

    def keep(self, order: Sequence[int]) -> None:
        """Slot i holds from now on what slot order[i] held (see `survivors`); other rows are given up."""
        self._copy([(old, new) for new, old in enumerate(order) if old != new])
        self.lengths = [self.lengths[place] for place in order]

    def _copy(self, moves: Sequence[tuple[int, int]]) -> None:
        """Slots of rows to other slots."""
        if moves:
            old, new = torch.tensor(moves, device=next(iter(self.cache.values()))[0].device).unbind(1)
            width = max(self.lengths[place] for place, _ in moves)
            for tensors in self.cache.values():
                for tensor in tensors:
                    tensor[new, :, :width] = tensor[old, :, :width]

    @contextmanager
    def _attention(self, step: Step) -> Iterator[None]:
        usual, token = self.trunk.config._attn_implementation, _now.set((self, step))
        self.trunk.config._attn_implementation = NAME
        try:
            yield
        finally:
            self.trunk.config._attn_implementation = usual
            _now.reset(token)

    def write(self, module: nn.Module, step: Step, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put (heads, tokens, width) of keys and values where they belong; → all of this attention."""
        if module not in self.cache:
            # zeros, since what is masked has weight 0, and 0 times whatever lies in fresh memory may be no number
            self.cache[module] = (self._empty(key), self._empty(value))
        keys, values = self.cache[module]
        keys[step.slot, :, step.position] = key.transpose(0, 1)
        values[step.slot, :, step.position] = value.transpose(0, 1)
        return keys, values

    def _empty(self, like: Tensor) -> Tensor:
        heads, _, width = like.shape
        return like.new_zeros(self.slots, heads, self.positions, width)


def distinct(prompts: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Different prompts in the order in which they come, and which of them each row has."""
    places: dict[tuple[int, ...], int] = {}
    which = [places.setdefault(tuple(prompt), len(places)) for prompt in prompts]
    return list(places), which


def survivors(rows: int, gone: Sequence[int]) -> list[int]:
    """Which place each row that stays comes from: those behind fill the gaps, so that few move.

    Args:
        rows: how many places are taken, 0 … rows − 1.
        gone: places of rows that have ended.
    """
    left = set(range(rows)).difference(gone)
    behind = sorted(place for place in left if place >= len(left))
    return [place if place in left else behind.pop() for place in range(len(left))]


_now: ContextVar[tuple[SlotDecoder, Step]] = ContextVar("now")
_known: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def fits(trunk: PreTrainedModel) -> bool:
    """Whether this body computes the same in slots as row by row; tried once."""
    if trunk not in _known:
        _known[trunk] = _tried(trunk)
    return _known[trunk]


@torch.no_grad()
def _tried(trunk: PreTrainedModel) -> bool:
    if not getattr(trunk, "_supports_attention_backend", False) and not getattr(trunk, "_supports_sdpa", False):
        return False
    first, second = torch.arange(9, device=trunk.device).split([5, 4])
    first, second = (row % trunk.get_input_embeddings().num_embeddings for row in (first, second))
    with torch.autocast(trunk.device.type, enabled=False):
        whole = [trunk(input_ids=row[None], use_cache=False).last_hidden_state[0] for row in (first, second)]
        decoder = SlotDecoder(trunk, 2, 5)
        try:
            # one row alone, then beside a new one, then the other alone in its place
            found = [decoder.step(first[:0], [first[:3].tolist()])]
            found.append(decoder.step(first[3:4], [second[:2].tolist()]))
            found.append(decoder.step(torch.stack([first[4], second[2]]), []))
            decoder.keep(survivors(2, [0]))
            found.append(decoder.step(second[3:4], []))
        except (CannotPackError, TypeError):
            return False
    expected = torch.stack([whole[0][2], whole[0][3], whole[1][1], whole[0][4], whole[1][2], whole[1][3]]).float()
    close = 1e-3 if trunk.dtype == torch.float32 else 3e-2
    return torch.allclose(torch.cat(found).float(), expected, rtol=close, atol=close * float(expected.abs().max()))


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Each token looks at its row's slot: (1, heads, tokens, width of a head) → (1, tokens, heads, width)."""
    refuse_foreign(module, attention_mask, dropout, others)
    decoder, step = _now.get()
    with torch.autocast(query.device.type, enabled=False):
        # a processor attends faster in float32
        wide = torch.promote_types(query.dtype, torch.float32) if query.device.type == "cpu" else query.dtype
        keys, values = decoder.write(module, step, key[0].to(wide), value[0].to(wide))
        queries_THD = query[0].to(wide).transpose(0, 1)
        attended = []
        if step.going:
            attended.append(_continued(queries_THD[: step.going], keys, values, step, scaling))
        if len(step.new):
            attended.append(_prompts(queries_THD[step.going :], keys, values, step, scaling))
    return torch.cat(attended)[None].to(query.dtype), None


def _continued(queries: Tensor, keys: Tensor, values: Tensor, step: Step, scaling: float | None) -> Tensor:
    """One token a row over what its slot holds: (going, heads, width) → the same shape."""
    rows, heads, _ = queries.shape
    # query heads that share a key head are as many queries to it
    attended = F.scaled_dot_product_attention(
        queries.reshape(rows, keys.shape[1], -1, queries.shape[-1]),
        keys[:rows, :, : step.width],
        values[:rows, :, : step.width],
        attn_mask=step.mask,
        scale=scaling,
    )
    return attended.reshape(rows, heads, -1)


def _prompts(queries: Tensor, keys: Tensor, values: Tensor, step: Step, scaling: float | None) -> Tensor:
    """Causal attention within each new prompt: (prompt tokens, heads, width) → the same shape."""
    _, heads, width = queries.shape
    padded = queries.new_zeros(len(step.new) * step.longest, heads, width).index_copy(0, step.flat, queries)
    attended = F.scaled_dot_product_attention(
        padded.view(len(step.new), step.longest, heads, width).transpose(1, 2),
        keys[step.new, :, : step.longest],
        values[step.new, :, : step.longest],
        is_causal=True,
        scale=scaling,
        enable_gqa=heads != keys.shape[1],
    )
    return attended.transpose(1, 2).flatten(0, 1)[step.flat]


AttentionInterface.register(NAME, _attend)
