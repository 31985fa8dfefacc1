"""Log-probs of completion tokens under K heads, by blocks of the vocabulary (docs/performance.md).

A block's logits are [tokens, block], small enough for a cache and worked on in place, so nothing of the size of
[tokens, K, vocabulary] is ever made. Blocks are of the vocabulary, not of tokens: the gradient of a head is then
written once, where blocks of tokens would add to all of it again and again.

Products are in the type of `hidden`; exponentials and sums are float32 or wider. Tokens whose gradient under an expert
is exactly 0 take no part in that expert's backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mixdpo.policy.head_blocks import Block, Kept, Room, Seen, blocks_of, exp_

# bytes of one head's logits that wait for the backward pass, which computes the others again
KEPT_BYTES = 256 << 20


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
        blocks = blocks_of(target, weight.shape[1])
        seen = Seen(blocks, len(weight), hidden)
        kept = Kept(kept_bytes if any(ctx.needs_input_grad) else 0)
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
                    weighed = powers.mul_(exp_(top - total[:, None]))
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
        blocks = blocks_of(target, len(base))
        seen = Seen(blocks, len(up), hidden)
        kept = Kept(kept_bytes if any(ctx.needs_input_grad) else 0)
        room = Room(blocks, hidden)
        for block in blocks:
            shared = _product(hidden, base, bias, block)
            kept.offer(block, 0, shared)
            for expert in range(len(up)):
                turn = up[expert, block.span].to(shared.dtype)
                logits = torch.addmm(shared, inner[expert], turn.T, out=room.of(len(hidden), block, shared.dtype))
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
        room, sums = Room(ctx.blocks, hidden), Room(ctx.blocks, hidden)
        for block in ctx.blocks:
            kept = ctx.kept.take(block, 0)
            shared = _product(hidden, base, bias, block) if kept is None else kept[0]
            summed = sums.of(len(hidden), block, grad.dtype).zero_() if of_hidden is not None else None
            for expert, (tokens, states) in enumerate(zip(active, inner_rows, strict=True)):
                if not len(states):
                    continue
                scale, total = _rows(grad[:, expert], tokens), _rows(normaliser[:, expert], tokens)
                turn = up[expert, block.span].to(hidden.dtype)
                place = room.of(len(states), block, shared.dtype)
                probs = _turned_probs(_rows(shared, tokens), states, turn, total, place)
                slope = _slope(probs, scale, block, tokens)
                if summed is not None:
                    _add_rows(summed, tokens, slope)
                slope = slope.to(hidden.dtype)
                _add_rows(of_inner[expert], tokens, slope @ turn)
                of_up[expert, :, block.span] = states.T @ slope
            if of_hidden is not None and summed is not None:
                _add_product(of_hidden, summed.to(hidden.dtype), base[block.span])
        found = None if of_hidden is None else of_hidden.to(hidden.dtype)
        return found, None, None, None, of_inner.to(inner.dtype), of_up.mT, None


def _probs(logits: Tensor, normaliser: Tensor) -> Tensor:
    """softmax(logits): (tokens, block), written over them where their type allows it."""
    same = logits.dtype == normaliser.dtype
    return exp_(torch.sub(logits, normaliser[:, None], out=logits if same else None))


def _turned_probs(shared: Tensor, states: Tensor, turn: Tensor, normaliser: Tensor, place: Tensor) -> Tensor:
    """softmax(shared + states · turnᵀ): (tokens, block), in `place` where its type allows it."""
    if place.dtype != normaliser.dtype:
        return _probs(torch.addmm(shared, states, turn.T, out=place), normaliser)
    # what would be a copy subtracts as well
    return exp_(torch.sub(shared, normaliser[:, None], out=place).addmm_(states, turn.T))


def _product(states: Tensor, weight: Tensor, bias: Tensor | None, block: Block) -> Tensor:
    """Logits of a block: (tokens, block)."""
    part = None if bias is None else bias[block.span].to(states.dtype)
    return torch.nn.functional.linear(states, weight[block.span].to(states.dtype), part)


def _slope(probs: Tensor, scale: Tensor, block: Block, tokens: Tensor | None) -> Tensor:
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
