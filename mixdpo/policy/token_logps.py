"""Log-probs of chosen tokens from logits, with a backward pass that writes the gradient over the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _TokenLogps(torch.autograd.Function):
    """log softmax(logits)[target], saving only the logits.

    Autograd's own way (gather, logsumexp) makes three more tensors of the size of the logits in its backward pass;
    over [tokens, experts, vocabulary] that is most of a step on a CPU (docs/performance.md).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        normaliser = logits.logsumexp(dim=-1)
        ctx.save_for_backward(logits, normaliser, target)
        return logits.gather(-1, target[..., None]).squeeze(-1) - normaliser

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        logits, normaliser, target = ctx.saved_tensors
        probs = (logits - normaliser[..., None]).exp_()
        probs.mul_(-grad[..., None])
        probs.scatter_add_(-1, target[..., None], grad[..., None])
        return probs, None


def token_logps(logits: Tensor, target: Tensor) -> Tensor:
    """log-prob of each target token.

    Args:
        logits: (..., vocabulary), float32.
        target: (...) token ids.

    Returns:
        (...), nats.
    """
    result: Tensor = _TokenLogps.apply(logits, target)  # type: ignore[no-untyped-call]
    return result
