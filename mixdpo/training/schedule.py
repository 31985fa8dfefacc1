"""Optimiser and schedules that SFT and EM share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer


def adamw(groups: Iterable[Mapping[str, Any]], weight_decay: float) -> Optimizer:
    """Fused AdamW; each group names its `params` and peak learning rate `lr`."""
    parts = [dict(group, params=part) for group in groups for part in _alike(group["params"])]
    optimizer = AdamW(parts, weight_decay=weight_decay, fused=True)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def _alike(parameters: Sequence[Parameter]) -> list[list[Parameter]]:
    """Parameters that are spread over ranks, and others: one fused update does not take both."""
    spread: list[Parameter] = []
    rest: list[Parameter] = []
    for parameter in parameters:
        (spread if isinstance(parameter, DTensor) else rest).append(parameter)
    return [spread, rest] if spread else [rest]


def set_learning_rate(optimizer: Optimizer, step: int, steps: int, warmup: float) -> None:
    """Linear warm-up over the first share of steps, then linear decay to a tenth of the peak."""
    rising = max(1, round(warmup * steps))
    falling = 1.0 - 0.9 * (step - rising) / max(1, steps - rising)
    factor = (step + 1) / rising if step < rising else falling
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def anneal(step: int, start: float, end: float, steps: int, shape: str) -> float:
    """From `start` to `end` over `steps`, `linear` or `exponential`, then `end` for ever."""
    if step >= steps:
        return end
    share = step / steps
    return start * (end / start) ** share if shape == "exponential" else start + (end - start) * share
