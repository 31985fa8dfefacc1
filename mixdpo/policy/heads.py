"""K output heads over one trunk: full (the paper's) or low-rank around a frozen shared one (method.md §4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixdpo.policy.head_logps import KEPT_BYTES, linear_logps, low_rank_logps


class LinearHeads(nn.Module):
    """logits_k = h W_kᵀ + b_k, all K stacked so that they are one matrix product."""

    def __init__(self, weight_KVD: Tensor, bias_KV: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_KVD)
        self.bias = None if bias_KV is None else nn.Parameter(bias_KV)

    @classmethod
    def copies(cls, weight_VD: Tensor, bias_V: Tensor | None, experts: int) -> LinearHeads:
        """K equal copies of one head."""
        bias = None if bias_V is None else bias_V.detach().clone().repeat(experts, 1)
        return cls(weight_VD.detach().clone().repeat(experts, 1, 1), bias)

    @property
    def experts(self) -> int:
        return int(self.weight.shape[0])

    @property
    def vocabulary(self) -> int:
        return int(self.weight.shape[1])

    def forward(self, hidden_CD: Tensor) -> Tensor:
        """(tokens, width) → logits (tokens, experts, vocabulary)."""
        experts, vocabulary, width = self.weight.shape
        flat = nn.functional.linear(
            hidden_CD, self.weight.view(-1, width), None if self.bias is None else self.bias.view(-1)
        )
        return flat.view(-1, experts, vocabulary)

    def logps(self, hidden_CD: Tensor, target_C: Tensor, kept_bytes: int = KEPT_BYTES) -> Tensor:
        """log-prob of each target token under every head: (tokens, experts), float32 or wider, nats."""
        hidden = as_product(hidden_CD, self.weight)
        return linear_logps(hidden, target_C, self.weight, self.bias, kept_bytes)

    def one(self, hidden_CD: Tensor, expert: int) -> Tensor:
        """(tokens, width) → logits of one expert (tokens, vocabulary)."""
        return nn.functional.linear(hidden_CD, self.weight[expert], None if self.bias is None else self.bias[expert])

    def dense(self, expert: int) -> tuple[Tensor, Tensor | None]:
        """Weight (vocabulary, width) and bias (vocabulary,) of one expert, for export."""
        return self.weight[expert].detach(), None if self.bias is None else self.bias[expert].detach()

    @torch.no_grad()
    def perturb(self, scale: float, generator: torch.Generator) -> None:
        """Add Gaussian noise of `scale` standard deviations of the weights: equal heads would never part (§5)."""
        noise = torch.randn(self.weight.shape, generator=generator).to(self.weight)
        self.weight.add_(noise, alpha=scale * float(self.weight.std()))

    def copy_expert(self, source: int, target: int) -> None:
        """Make head `target` equal to head `source`, in place."""
        copy_slice(self, source, target)

    def select(self, experts: Sequence[int]) -> LinearHeads:
        """New heads with these experts in this order: a head named twice is copied, one not named is left out."""
        places = list(experts)
        return LinearHeads(
            self.weight.detach()[places], None if self.bias is None else self.bias.detach()[places]
        ).requires_grad_(self.weight.requires_grad)


class LowRankHeads(nn.Module):
    """logits_k = h W₀ᵀ + (h A_kᵀ) B_kᵀ: the shared product is done once, each expert adds rank·(D+V)."""

    base: Tensor  # (vocabulary, width)
    base_bias: Tensor | None  # (vocabulary,)

    def __init__(self, base_VD: Tensor, base_bias_V: Tensor | None, down_KRD: Tensor, up_KVR: Tensor) -> None:
        super().__init__()
        self.register_buffer("base", base_VD, persistent=False)
        self.register_buffer("base_bias", base_bias_V, persistent=False)
        self.down = nn.Parameter(down_KRD)
        self.up = nn.Parameter(up_KVR)

    @classmethod
    def around(
        cls, weight_VD: Tensor, bias_V: Tensor | None, experts: int, rank: int, generator: torch.Generator
    ) -> LowRankHeads:
        """B_k = 0, so every expert starts exactly at the shared head; A_k random, so gradients differ (§5)."""
        vocabulary, width = weight_VD.shape
        down = torch.randn((experts, rank, width), generator=generator) / math.sqrt(width)
        bias = None if bias_V is None else bias_V.detach().clone()
        return cls(weight_VD.detach().clone(), bias, down, torch.zeros(experts, vocabulary, rank))

    @property
    def experts(self) -> int:
        return int(self.down.shape[0])

    @property
    def vocabulary(self) -> int:
        return int(self.base.shape[0])

    def forward(self, hidden_CD: Tensor) -> Tensor:
        """(tokens, width) → logits (tokens, experts, vocabulary)."""
        shared_CV = nn.functional.linear(hidden_CD, self.base, self.base_bias)
        inner_CKR = torch.einsum("cd,krd->ckr", hidden_CD, self.down)
        return shared_CV[:, None, :] + torch.einsum("ckr,kvr->ckv", inner_CKR, self.up)

    def logps(self, hidden_CD: Tensor, target_C: Tensor, kept_bytes: int = KEPT_BYTES) -> Tensor:
        """log-prob of each target token under every head: (tokens, experts), float32 or wider, nats."""
        hidden = as_product(hidden_CD, self.base)
        inner_KCR = hidden @ self.down.to(hidden.dtype).mT
        return low_rank_logps(hidden, target_C, self.base, self.base_bias, inner_KCR, self.up, kept_bytes)

    def one(self, hidden_CD: Tensor, expert: int) -> Tensor:
        """(tokens, width) → logits of one expert (tokens, vocabulary)."""
        shared_CV = nn.functional.linear(hidden_CD, self.base, self.base_bias)
        return shared_CV + (hidden_CD @ self.down[expert].T) @ self.up[expert].T

    def dense(self, expert: int) -> tuple[Tensor, Tensor | None]:
        """Weight (vocabulary, width) and bias (vocabulary,) of one expert, for export."""
        return (self.base + self.up[expert] @ self.down[expert]).detach(), self.base_bias

    @torch.no_grad()
    def perturb(self, scale: float, generator: torch.Generator) -> None:
        """Random A_k already break the symmetry; noise on B_k moves the start off the reference as well."""
        noise = torch.randn(self.up.shape, generator=generator).to(self.up)
        self.up.add_(noise, alpha=scale * float(self.base.std()))

    def copy_expert(self, source: int, target: int) -> None:
        """Make head `target` equal to head `source`, in place."""
        copy_slice(self, source, target)

    def select(self, experts: Sequence[int]) -> LowRankHeads:
        """New heads with these experts in this order, around the same shared head (`LinearHeads.select`)."""
        places = list(experts)
        return LowRankHeads(
            self.base, self.base_bias, self.down.detach()[places], self.up.detach()[places]
        ).requires_grad_(self.up.requires_grad)


Heads = LinearHeads | LowRankHeads


def as_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """States in the type that a product with this weight is done in: autocast's, or the weight's own."""
    kind = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype)


@torch.no_grad()
def copy_slice(module: nn.Module, source: int, target: int) -> None:
    """Copy row `source` of every parameter to row `target`: each has the experts in its first dimension."""
    for parameter in module.parameters():
        parameter[target].copy_(parameter[source])


def fresh_heads(
    weight_VD: Tensor, bias_V: Tensor | None, experts: int, rank: int | None, generator: torch.Generator
) -> Heads:
    """Heads started from one head: K copies, or low-rank changes around it where a rank is given."""
    if rank is None:
        return LinearHeads.copies(weight_VD, bias_V, experts)
    return LowRankHeads.around(weight_VD, bias_V, experts, rank, generator)
