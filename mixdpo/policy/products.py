"""Linear layers made ready for a long run of small products: writing meets the same weights with a few rows, again and
again.

On a processor oneDNN lays the weights out once for such products, where MKL arranges them anew at every call. Under
autocast they are cast once instead of at every step (frozen weights are not in autocast's own cache).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.heads import Heads, LowRankHeads

PAYS_AFTER = 32  # passes: laying a weight out costs what about 15 of them save
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


class HeadProducts:
    """K heads made ready: each row meets its own expert's."""

    def __init__(self, heads: Heads, dtype: torch.dtype, packed: bool) -> None:
        self.shared: Product | None = None
        if isinstance(heads, LowRankHeads):
            self.shared = Product(heads.base, heads.base_bias, dtype, packed)
            self.down = heads.down.detach().to(dtype)
            self.up = heads.up.detach().to(dtype)
        else:
            biases = [None] * heads.experts if heads.bias is None else list(heads.bias)
            self.own = [Product(weight, bias, dtype, packed) for weight, bias in zip(heads.weight, biases, strict=True)]

    def __call__(self, hidden_CD: Tensor, counts: Sequence[int]) -> Tensor:
        """Logits (rows, vocabulary), float32 or wider, of each row's own expert.

        Args:
            hidden_CD: (rows, width), those of expert 0 first, and so on.
            counts: how many rows each expert has.
        """
        if self.shared is None:
            parts = zip(self.own, hidden_CD.split(counts), strict=True)
            logits = [product(part) for product, part in parts if len(part)]
            return (logits[0] if len(logits) == 1 else torch.cat(logits)).float()
        logits_CV = self.shared(hidden_CD)
        rows = zip(hidden_CD.to(logits_CV.dtype).split(counts), logits_CV.split(counts), strict=True)
        for expert, (part, out) in enumerate(rows):
            if len(part):
                out.addmm_(part @ self.down[expert].T, self.up[expert].T)
        return logits_CV.float()


@contextmanager
def ready(models: Iterable[SharedTrunk], passes: int, rows: int) -> Iterator[dict[SharedTrunk, HeadProducts]]:
    """The heads of these models made ready, and inside the linear layers of their trunks; the models are not changed.

    Args:
        passes: how often they will run, about: laying out a weight costs as much as some products with it.
        rows: of each pass, about. One row in float32 reads a weight as fast as memory gives it, whatever its layout.
    """
    heads, layers = {}, []
    try:
        for model in models:
            dtype = _dtype(model)
            pays = passes >= PAYS_AFTER and (rows > 1 or dtype != torch.float32)
            packed = pays and model.trunk.device.type == "cpu" and _packs(dtype) and _fits(model, dtype)
            heads[model] = HeadProducts(model.heads, dtype, packed)
            # subclasses keep their weights in forms of their own
            for layer in (module for module in model.trunk.modules() if type(module) in (nn.Linear, Conv1D)):
                weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
                layer.forward = Product(weight, layer.bias, dtype, packed)
                layers.append(layer)
        yield heads
    finally:
        for layer in layers:
            del layer.forward


def _dtype(model: SharedTrunk) -> torch.dtype:
    """The type that products are done in: autocast's, or the weights' own."""
    kind = model.trunk.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.trunk.dtype


def _fits(model: SharedTrunk, dtype: torch.dtype) -> bool:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() for tensor in tensors) * dtype.itemsize <= PACKED_BYTES


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether this torch and processor lay out weights of this type, and compute the same with them."""
    weight, x = torch.eye(3, 5, dtype=dtype), torch.ones(2, 5, dtype=dtype)
    try:
        return torch.equal(Product(weight, None, dtype, packed=True)(x), nn.functional.linear(x, weight))
    except (AttributeError, RuntimeError):
        return False
