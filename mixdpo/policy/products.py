"""A trunk and its heads made ready for writing, which meets the same weights with a few rows, again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from mixdpo.linear import Product, can_pack, laid_out, product_type
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.heads import Heads, LowRankHeads

PAYS_AFTER = 32  # passes: laying a weight out costs what about 15 of them save


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
    heads = {}
    with ExitStack() as stack:
        for model in models:
            device = model.trunk.device
            dtype = product_type(device, model.trunk.dtype)
            pays = passes >= PAYS_AFTER and (rows > 1 or dtype != torch.float32)
            packed = pays and can_pack(model, device, dtype)
            heads[model] = HeadProducts(model.heads, dtype, packed)
            stack.enter_context(laid_out(model.trunk, dtype, packed))
        yield heads
