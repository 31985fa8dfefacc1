"""A transformer body over rows of different length without their padding (docs/performance.md).

All tokens lie in one packed row, so that whatever works token by token (linear layers, norms, activations) meets no
padding; only attention tells the rows apart: row by row on a processor, padded to one length on a GPU. A prompt that
several rows share stands in that row once, and each of them attends to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.activations import NewGELUActivation

from mixdpo.policy.layout import Layout
from mixdpo.policy.recompute import recomputed

NAME = "mixdpo_packed"
# what another architecture may ask of attention and plain causal attention over whole rows does not do
FOREIGN = ("sliding_window", "softcap", "s_aux", "position_bias")


class CannotPackError(Exception):
    """The body asks of attention what packed rows do not offer."""


def refuse_foreign(module: nn.Module, attention_mask: Tensor | None, dropout: float, others: Mapping[str, Any]) -> None:
    """Raise CannotPackError where an attention layer asks for more than plain causal attention."""
    asked = [name for name in FOREIGN if others.get(name) is not None]
    if asked or dropout or attention_mask is not None or not getattr(module, "is_causal", True):
        raise CannotPackError(f"{type(module).__name__} asks attention for {', '.join(asked) or 'a mask or dropout'}")


Attend = Callable[..., Tensor]

_layout: ContextVar[Layout] = ContextVar("layout")
_known: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def trunk_states(trunk: PreTrainedModel, input_ids: Tensor, layout: Layout, recompute: bool = False) -> Tensor:
    """Last states of all tokens of the layout, as they stand in its line: (tokens, width).

    Args:
        input_ids: (rows, positions), padded on the right.
        recompute: keep the inputs of layers alone, and run each again on the way back.
    """
    run = _packed_states if packs(trunk) else _padded_states
    return run(trunk, input_ids, layout, recompute)


def packs(trunk: PreTrainedModel) -> bool:
    """Whether this body computes the same on packed rows, tried once on a few short ones."""
    if trunk not in _known:
        _known[trunk] = _try_packing(trunk)
    return _known[trunk]


def _padded_states(trunk: PreTrainedModel, input_ids: Tensor, layout: Layout, recompute: bool = False) -> Tensor:
    device = input_ids.device
    mask = (torch.arange(layout.positions) < torch.tensor(layout.lengths)[:, None]).long().to(device)
    with recomputed(trunk, nullcontext) if recompute else nullcontext():
        states: Tensor = trunk(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state
    return states.flatten(0, 1)[layout.flat.to(device)]


def _packed_states(trunk: PreTrainedModel, input_ids: Tensor, layout: Layout, recompute: bool = False) -> Tensor:
    flat = layout.flat.to(input_ids.device)
    packed, positions = input_ids.flatten()[flat][None], (flat % layout.positions)[None]
    around = partial(_packed_attention, trunk, layout)
    with around(), recomputed(trunk, around) if recompute else nullcontext():
        states: Tensor = trunk(input_ids=packed, position_ids=positions, use_cache=False).last_hidden_state
    return states[0]


@torch.no_grad()
def _try_packing(trunk: PreTrainedModel) -> bool:
    if not getattr(trunk, "_supports_attention_backend", False) and not getattr(trunk, "_supports_sdpa", False):
        return False
    rows = torch.arange(15, device=trunk.device).view(3, 5) % trunk.get_input_embeddings().num_embeddings
    rows[2, :2] = rows[0, :2]
    layout = Layout([5, 3, 4], [0, 1, 0], [0, 0, 2])
    with torch.autocast(trunk.device.type, enabled=False):
        padded = _padded_states(trunk, rows, layout)
        try:
            packed = _packed_states(trunk, rows, layout)
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
    refuse_foreign(module, attention_mask, dropout, others)
    attend = partial(F.scaled_dot_product_attention, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
    by = _row_by_row if query.device.type == "cpu" else _padded_inside
    with torch.autocast(query.device.type, enabled=False):
        return by(attend, query, key, value, _layout.get()).to(query.dtype), None


def _row_by_row(attend: Attend, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """One product a row, in float32: half the time of padded rows, and a third of that in half precision."""
    wide = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (query, key, value))
    rows = list(zip(*(each.split(layout.own, dim=2) for each in wide), strict=True))
    attended = []
    for (queries, *own), owner, shared in zip(rows, layout.owners, layout.shared, strict=True):
        if not shared:
            attended.append(attend(queries, *own, is_causal=True))
            continue
        begun = rows[owner][1:]
        keys, values = (
            torch.cat([before[:, :, :shared], each], dim=2) for before, each in zip(begun, own, strict=True)
        )
        seen = torch.ones(queries.shape[2], keys.shape[2], dtype=torch.bool).tril(shared)
        attended.append(attend(queries, keys, values, attn_mask=seen))
    return torch.cat(attended, dim=2).transpose(1, 2)


def _padded_inside(attend: Attend, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Few launches, for a GPU; causal attention never looks at the padding, which is on the right."""
    places, flat = layout.places.to(query.device), layout.flat.to(query.device)
    spread = (each[0][:, places].transpose(0, 1) for each in (query, key, value))
    return attend(*spread, is_causal=True).transpose(1, 2).flatten(0, 1)[flat][None]


AttentionInterface.register(NAME, _attend)


def fuse_activations(trunk: nn.Module) -> None:
    """Replace the tanh GELU written as eight operations by the one operation that computes the same, in place."""
    for module in trunk.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
