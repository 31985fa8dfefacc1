"""A trunk that keeps the inputs of its layers alone, and runs each layer again on the way back: time for memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def recomputed(trunk: nn.Module, around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Within, layers of the trunk keep their inputs alone. A body without marked layers runs as ever.

    transformers' own switch works on bodies in training mode alone, where dropout is on.

    Args:
        around: what a layer needs around it when it is run again, which is after this context has ended.
    """
    layers = [module for module in trunk.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = partial(_again_later, layer.forward, around)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _again_later(
    forward: Callable[..., Any], around: Callable[[], AbstractContextManager[None]], *args: Any, **kwargs: Any
) -> Any:
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing is drawn: there is no dropout
        context_fn=lambda: (nullcontext(), around()),
        **kwargs,
    )
