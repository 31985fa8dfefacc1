"""Monte-Carlo relaxation of responsibilities: Gumbel-Softmax, soft or straight-through (method.md §4)."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_softmax(
    responsibilities: Tensor, temperature: float, straight_through: bool, generator: torch.Generator
) -> Tensor:
    """softmax((log q + g) / τ) with Gumbel noise g, or the one-hot of it.

    The argmax is a draw from q at every τ; τ → 0 makes it a one-hot, a large τ makes it uniform.

    Args:
        responsibilities: (rows, experts).
        temperature: τ above 0.
        straight_through: take the one-hot. The M-step holds q fixed, so no gradient is to pass through.
        generator: on the CPU, so that the draw is the same on every device.

    Returns:
        (rows, experts), rows sum to 1.
    """
    uniform = torch.rand(responsibilities.shape, generator=generator, dtype=torch.float64)
    noise = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
    scores = responsibilities.log() + noise.to(responsibilities)
    if straight_through:
        return torch.nn.functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).to(responsibilities)
    return torch.softmax(scores / temperature, dim=-1)
