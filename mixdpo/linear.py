"""Linear layers made ready for many products with the same weights.

On a processor oneDNN lays the weights out once, where MKL arranges them anew at every call. Under autocast they are
cast once instead of at every call (frozen weights are not in autocast's own cache).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

PACKED_BYTES = 4 << 30  # at most: a copy of larger weights would rather be memory that is missing


class Product:
    """x Wᵀ + b of one linear layer: (…, inputs) → (…, outputs), in one type."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype, packed: bool) -> None:
        self.dtype = dtype
        self.packed = packed
        weight = weight_OI.detach().to(dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None) if packed else weight
        self.bias = None if bias_O is None else bias_O.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
            return out
        return nn.functional.linear(x.to(self.dtype), self.weight, self.bias)


@contextmanager
def laid_out(module: nn.Module, dtype: torch.dtype, packed: bool) -> Iterator[None]:
    """The linear layers of a module that is not trained, made ready inside; the module is not changed.

    Args:
        dtype: of products.
        packed: whether to lay weights out (`can_pack`), or only to cast them.
    """
    layers = _plain(module)
    try:
        for layer in layers:
            weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
            layer.forward = Product(weight, layer.bias, dtype, packed)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def linear_weights(module: nn.Module) -> int:
    """How many weights its linear layers have: half the operations a token."""
    return sum(layer.weight.numel() for layer in _plain(module))


def _plain(module: nn.Module) -> list[Any]:
    # subclasses keep their weights in forms of their own
    return [each for each in module.modules() if type(each) in (nn.Linear, Conv1D)]


def product_type(device: torch.device, weights: torch.dtype) -> torch.dtype:
    """The type that products are done in: autocast's, or the weights' own."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else weights


def can_pack(module: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch and processor lay out weights of this type, and there is room for theirs."""
    tensors = [*module.parameters(), *module.buffers()]
    small = sum(tensor.numel() for tensor in tensors) * dtype.itemsize <= PACKED_BYTES
    return device.type == "cpu" and small and _packs(dtype)


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether products with laid-out weights are there, and are the same."""
    weight, x = torch.eye(3, 5, dtype=dtype), torch.ones(2, 5, dtype=dtype)
    try:
        return torch.equal(Product(weight, None, dtype, packed=True)(x), nn.functional.linear(x, weight))
    except (AttributeError, RuntimeError):
        return False
