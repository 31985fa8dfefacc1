"""A transformer body over rows of different length without their padding (docs/performance.md).

All tokens lie in one packed row, so that whatever works token by token (linear layers, norms, activations) meets no
padding; only attention tells the rows apart: row by row on a processor, padded to one length on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.activations import NewGELUActivation

NAME = "mixdpo_packed"
# what another architecture may ask of attention and plain causal attention over whole rows does not do
FOREIGN = ("sliding_window", "softcap", "s_aux", "position_bias")


@dataclass(frozen=True)
class Layout:
    """Where packed tokens lie in padded rows."""

    rows: int
    positions: int
    lengths: list[int]
    flat: Tensor  # (tokens,) row · positions + position

    @classmethod
    def of(cls, attention_mask: Tensor) -> Layout:
        """Args: attention_mask: (rows, positions), padded on the right."""
        rows, positions = attention_mask.shape
        return cls(rows, positions, attention_mask.sum(dim=1).tolist(), attention_mask.flatten().nonzero()[:, 0])

    @property
    def position_ids(self) -> Tensor:
        return (self.flat % self.positions)[None]


class CannotPackError(Exception):
    """The body asks of attention what packed rows do not offer."""


_layout: ContextVar[Layout] = ContextVar("layout")
_known: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def trunk_states(trunk: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Last states of all tokens that are no padding, row after row: (tokens, width).

    Args:
        input_ids: (rows, positions), padded on the right.
        attention_mask: of the same shape.
    """
    if trunk not in _known:
        _known[trunk] = _packs(trunk)
    if _known[trunk]:
        return _packed_states(trunk, input_ids, attention_mask)
    return _padded_states(trunk, input_ids, attention_mask)


def _padded_states(trunk: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    states: Tensor = trunk(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    return states[attention_mask.bool()]


def _packed_states(trunk: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    layout = Layout.of(attention_mask)
    packed = input_ids.flatten()[layout.flat][None]
    with _packed_attention(trunk, layout):
        states: Tensor = trunk(input_ids=packed, position_ids=layout.position_ids, use_cache=False).last_hidden_state
    return states[0]


@torch.no_grad()
def _packs(trunk: PreTrainedModel) -> bool:
    """Whether this body computes the same on packed rows, tried on two short ones."""
    if not getattr(trunk, "_supports_attention_backend", False) and not getattr(trunk, "_supports_sdpa", False):
        return False
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=trunk.device)
    ids = torch.arange(10, device=trunk.device).view(2, 5) % trunk.get_input_embeddings().num_embeddings
    with torch.autocast(trunk.device.type, enabled=False):
        padded = _padded_states(trunk, ids, mask)
        try:
            packed = _packed_states(trunk, ids, mask)
        except (CannotPackError, TypeError):
            return False
    return torch.allclose(padded.float(), packed.float(), rtol=1e-3, atol=1e-3 * float(padded.abs().max()))


@contextmanager
def _packed_attention(trunk: PreTrainedModel, layout: Layout) -> Iterator[None]:
    usual, token = trunk.config._attn_implementation, _layout.set(layout)
    trunk.config._attn_implementation = NAME
    try:
        yield
    finally:
        trunk.config._attn_implementation = usual
        _layout.reset(token)


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
    """Causal attention within each packed row: (1, heads, tokens, width of a head) → (1, tokens, heads, width)."""
    asked = [name for name in FOREIGN if others.get(name) is not None]
    if asked or dropout or attention_mask is not None or not getattr(module, "is_causal", True):
        raise CannotPackError(f"{type(module).__name__} asks attention for {', '.join(asked) or 'a mask or dropout'}")
    grouped = query.shape[1] != key.shape[1]

    def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)

    layout, inputs = _layout.get(), (query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        if query.device.type == "cpu":
            # row by row, in float32: half the time of padded rows, and a third of that in half precision
            wide = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in inputs)
            rows = zip(*(each.split(layout.lengths, dim=2) for each in wide), strict=True)
            attended = torch.cat([causal(*row) for row in rows], dim=2).transpose(1, 2)
        else:
            # few launches; causal attention never looks at the padding, which is on the right
            padded = causal(*(_spread(each[0].transpose(0, 1), layout) for each in inputs))
            attended = padded.transpose(1, 2).flatten(0, 1)[layout.flat][None]
    return attended.to(query.dtype), None


def _spread(packed: Tensor, layout: Layout) -> Tensor:
    """(tokens, heads, width) → (rows, heads, positions, width)."""
    _, heads, width = packed.shape
    padded = packed.new_zeros(layout.rows * layout.positions, heads, width).index_copy(0, layout.flat, packed)
    return padded.view(layout.rows, layout.positions, heads, width).transpose(1, 2)


AttentionInterface.register(NAME, _attend)


def fuse_activations(trunk: nn.Module) -> None:
    """Replace the tanh GELU written as eight operations by the one operation that computes the same, in place."""
    for module in trunk.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
