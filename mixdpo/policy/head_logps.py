"""Log-probs of completion tokens under K heads, by blocks of the vocabulary (docs/performance.md).

A block's logits are [tokens, block], small enough for a cache and worked on in place, so nothing of the size of
[tokens, K, vocabulary] is ever made. Blocks are of the vocabulary, not of tokens: the gradient of a head is then
written once, where blocks of tokens would add to all of it again and again.

Products are in the type of `hidden`; exponentials and sums are float32 or wider. Tokens whose gradient under an expert
is exactly 0 take no part in that expert's backward pass.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# bytes of one head's logits that wait for the backward pass, which computes the others again
KEPT_BYTES = 256 << 20
# numbers in a block: what a processor's cache holds, and what keeps a GPU busy
CPU_BLOCK, GPU_BLOCK = 1 << 19, 1 << 26
# a product of fewer columns is a slow one
NARROWEST = 512
LOG2_E = math.log2(math.e)


def linear_logps(
    hidden: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None, kept_bytes: int = KEPT_BYTES
) -> Tensor:
    """log softmax(h W_kᵀ + b_k)[target]: (tokens, K), nats.

    Args:
        hidden: (tokens, width).
        target: (tokens,) token ids.
        weight: (K, vocabulary, width).
        bias: (K, vocabulary).
    """
    result: Tensor = _LinearLogps.apply(hidden, target, weight, bias, kept_bytes)  # type: ignore[no-untyped-call]
    return result


def low_rank_logps(
    hidden: Tensor,
    target: Tensor,
    base: Tensor,
    bias: Tensor | None,
    inner: Tensor,
    up: Tensor,
    kept_bytes: int = KEPT_BYTES,
) -> Tensor:
    """log softmax(h W₀ᵀ + b₀ + u_k B_kᵀ)[target]: (tokens, K), nats. W₀ and b₀ get no gradient.

    The product with W₀ is done once for all K, and so is the one that carries the gradient back to `hidden`.

    Args:
        hidden: (tokens, width).
        target: (tokens,) token ids.
        base: (vocabulary, width), W₀.
        bias: (vocabulary,), b₀.
        inner: (K, tokens, rank), u_k = h A_kᵀ.
        up: (K, vocabulary, rank), B_k.
    """
    result: Tensor = _LowRankLogps.apply(hidden, target, base, bias, inner, up, kept_bytes)  # type: ignore[no-untyped-call]
    return result


class _LinearLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None, kept_bytes: int
    ) -> Tensor:
        blocks = _blocks(target, weight.shape[1])
        seen = _Seen(blocks, len(weight), hidden)
        kept = _Kept(kept_bytes if any(ctx.needs_input_grad) else 0)
        for block in blocks:
            for expert in range(len(weight)):
                logits = _product(hidden, weight[expert], bias if bias is None else bias[expert], block)
                kept.offer(block, expert, *seen.add(block, expert, logits))
        picked, normaliser = seen.close()
        ctx.save_for_backward(hidden, target, weight, bias, normaliser)
        ctx.blocks, ctx.kept = blocks, kept
        return picked - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, _, weight, bias, normaliser = ctx.saved_tensors
        wants_hidden, _, wants_weight, wants_bias, _ = ctx.needs_input_grad
        of_hidden = torch.zeros_like(hidden, dtype=grad.dtype) if wants_hidden else None
        of_weight = torch.empty_like(weight) if wants_weight else None
        of_bias = torch.zeros_like(bias) if wants_bias else None
        for expert in range(len(weight)):
            tokens = _active(grad[:, expert])
            states, scale, total = (_rows(each, tokens) for each in (hidden, grad[:, expert], normaliser[:, expert]))
            if not len(states):
                if of_weight is not None:
                    of_weight[expert].zero_()
                continue
            back = torch.zeros_like(states, dtype=grad.dtype)
            for block in ctx.blocks:
                kept = ctx.kept.take(block, expert)
                if kept is None:
                    part = _product(states, weight[expert], bias if bias is None else bias[expert], block)
                    weighed = _probs(part, total)
                else:
                    powers, top = (_rows(each, tokens) for each in kept)
                    weighed = powers.mul_(_exp_(top - total[:, None]))
                slope = _slope(weighed, scale, block, tokens)
                if of_bias is not None:
                    of_bias[expert, block.span] = slope.sum(dim=0)
                slope = slope.to(hidden.dtype)
                if of_hidden is not None:
                    _add_product(back, slope, weight[expert, block.span])
                if of_weight is not None:
                    _write_product(of_weight[expert, block.span], slope.T, states)
            if of_hidden is not None:
                _add_rows(of_hidden, tokens, back)
        return None if of_hidden is None else of_hidden.to(hidden.dtype), None, of_weight, of_bias, None


class _LowRankLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        target: Tensor,
        base: Tensor,
        bias: Tensor | None,
        inner: Tensor,
        up: Tensor,
        kept_bytes: int,
    ) -> Tensor:
        blocks = _blocks(target, len(base))
        seen = _Seen(blocks, len(up), hidden)
        kept = _Kept(kept_bytes if any(ctx.needs_input_grad) else 0)
        for block in blocks:
            shared = _product(hidden, base, bias, block)
            kept.offer(block, 0, shared)
            for expert in range(len(up)):
                logits = torch.addmm(shared, inner[expert], up[expert, block.span].T.to(shared.dtype))
                seen.add(block, expert, logits)
        picked, normaliser = seen.close()
        ctx.save_for_backward(hidden, target, base, bias, inner, up, normaliser)
        ctx.blocks, ctx.kept = blocks, kept
        return picked - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, _, base, bias, inner, up, normaliser = ctx.saved_tensors
        of_hidden = torch.zeros_like(hidden, dtype=grad.dtype) if ctx.needs_input_grad[0] else None
        of_inner = torch.zeros_like(inner, dtype=grad.dtype)
        of_up = torch.zeros_like(up).mT.contiguous()  # (K, rank, vocabulary): the faster product
        active = [_active(column) for column in grad.unbind(dim=1)]
        inner_rows = [_rows(each, tokens) for each, tokens in zip(inner, active, strict=True)]
        for block in ctx.blocks:
            kept = ctx.kept.take(block, 0)
            shared = _product(hidden, base, bias, block) if kept is None else kept[0]
            summed = grad.new_zeros(len(hidden), block.width) if of_hidden is not None else None
            for expert, (tokens, states) in enumerate(zip(active, inner_rows, strict=True)):
                if not len(states):
                    continue
                scale, total = _rows(grad[:, expert], tokens), _rows(normaliser[:, expert], tokens)
                turn = up[expert, block.span].to(hidden.dtype)
                logits = torch.addmm(_rows(shared, tokens), states, turn.T)
                slope = _slope(_probs(logits, total), scale, block, tokens)
                if summed is not None:
                    _add_rows(summed, tokens, slope)
                slope = slope.to(hidden.dtype)
                _add_rows(of_inner[expert], tokens, slope @ turn)
                of_up[expert, :, block.span] = states.T @ slope
            if of_hidden is not None and summed is not None:
                _add_product(of_hidden, summed.to(hidden.dtype), base[block.span])
        found = None if of_hidden is None else of_hidden.to(hidden.dtype)
        return found, None, None, None, of_inner.to(inner.dtype), of_up.mT, None


class _Block(NamedTuple):
    """A part of the vocabulary."""

    place: int
    span: slice
    local: Tensor  # (tokens, 1) each target's place in the block, or any place
    inside: Tensor  # (tokens, 1) whether the target is in the block

    @property
    def width(self) -> int:
        return int(self.span.stop - self.span.start)


def _blocks(target: Tensor, vocabulary: int) -> list[_Block]:
    numbers = CPU_BLOCK if target.device.type == "cpu" else GPU_BLOCK
    width = max(NARROWEST, numbers // max(1, len(target)))
    blocks = []
    for place, start in enumerate(range(0, vocabulary, width)):
        stop = min(start + width, vocabulary)
        local = (target - start)[:, None]
        inside = (local >= 0) & (local < stop - start)
        blocks.append(_Block(place, slice(start, stop), local.clamp(0, stop - start - 1), inside))
    return blocks


class _Seen:
    """The targets' logits and the normalisers, gathered block by block: (tokens, experts) each."""

    def __init__(self, blocks: list[_Block], experts: int, hidden: Tensor) -> None:
        self.wide = torch.promote_types(hidden.dtype, torch.float32)
        self.picked = hidden.new_zeros((len(hidden), experts), dtype=self.wide)
        self.parts = hidden.new_empty((len(blocks), len(hidden), experts), dtype=self.wide)

    def add(self, block: _Block, expert: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Take a block's logits in and write over them; exp(logits − top) and top, (tokens, block) and (tokens, 1)."""
        found = logits.gather(1, block.local).to(self.wide)
        self.picked[:, expert] += torch.where(block.inside, found, 0.0)[:, 0]
        top = logits.amax(dim=1, keepdim=True).to(self.wide)
        powers = _exp_(torch.sub(logits, top, out=logits if logits.dtype == self.wide else None))
        self.parts[block.place, :, expert] = powers.sum(dim=1).log_().add_(top[:, 0])
        return powers, top

    def close(self) -> tuple[Tensor, Tensor]:
        return self.picked, self.parts.logsumexp(dim=0)


class _Kept:
    """What waits for the backward pass, as long as there is room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tensors: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def offer(self, block: _Block, expert: int, *tensors: Tensor) -> None:
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self.room:
            self.room -= size
            self.tensors[block.place, expert] = tensors

    def take(self, block: _Block, expert: int) -> tuple[Tensor, ...] | None:
        """What was kept, for once: it may be written over."""
        return self.tensors.pop((block.place, expert), None)


def _probs(logits: Tensor, normaliser: Tensor) -> Tensor:
    """softmax(logits): (tokens, block), written over them where their type allows it."""
    same = logits.dtype == normaliser.dtype
    return _exp_(torch.sub(logits, normaliser[:, None], out=logits if same else None))


def _exp_(exponents: Tensor) -> Tensor:
    """exp, written over its argument. On a processor torch's power of two takes a third of the time of its exp."""
    return exponents.mul_(LOG2_E).exp2_()


def _product(states: Tensor, weight: Tensor, bias: Tensor | None, block: _Block) -> Tensor:
    """Logits of a block: (tokens, block)."""
    part = None if bias is None else bias[block.span].to(states.dtype)
    return torch.nn.functional.linear(states, weight[block.span].to(states.dtype), part)


def _slope(probs: Tensor, scale: Tensor, block: _Block, tokens: Tensor | None) -> Tensor:
    """Gradient in the logits, scale · (one-hot − softmax): (tokens, block), written over the softmax."""
    local, inside = _rows(block.local, tokens), _rows(block.inside, tokens)
    return probs.mul_(-scale[:, None]).scatter_add_(1, local, torch.where(inside, scale[:, None], 0.0))


def _active(scale: Tensor) -> Tensor | None:
    """Tokens whose gradient is not 0; None: all of them."""
    tokens = scale.nonzero()[:, 0]
    return None if len(tokens) == len(scale) else tokens


def _rows(tensor: Tensor, tokens: Tensor | None) -> Tensor:
    return tensor if tokens is None else tensor[tokens]


def _add_rows(total: Tensor, tokens: Tensor | None, part: Tensor) -> None:
    if tokens is None:
        total += part
    else:
        total.index_add_(0, tokens, part.to(total.dtype))


def _add_product(total: Tensor, slope: Tensor, weight: Tensor) -> None:
    if total.dtype == slope.dtype:
        total.addmm_(slope, weight)
    else:
        total += slope @ weight.to(slope.dtype)


def _write_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        out.copy_(left @ right)
