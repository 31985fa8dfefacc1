"""Sums of gradients over the ranks that hold the same parameters, in buckets of a few large messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

# one message: long enough for the network's full rate, short enough to hold few copies
BUCKET_BYTES = 25 << 20


class GradientSum:
    """Sums the gradients of some parameters over a group of ranks that all hold them.

    A gradient that no rank has stays absent, so that the optimiser leaves its parameter alone, as it would by itself.
    """

    def __init__(self, parameters: Iterable[Parameter], group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.buckets: list[list[Parameter]] = []
        room = 0
        # the order in which a backward pass finishes them
        for parameter in reversed(list(parameters)):
            last = self.buckets[-1] if self.buckets else []
            if parameter.nbytes > room or not last or parameter.dtype != last[0].dtype:
                self.buckets.append([])
                room = BUCKET_BYTES
            self.buckets[-1].append(parameter)
            room -= parameter.nbytes

    def __call__(self) -> None:
        """Sum them in place."""
        flying = []
        for bucket in self.buckets:
            flat = torch.cat([*(_gradient(parameter).reshape(-1) for parameter in bucket), _there(bucket)])
            for parameter in bucket:
                parameter.grad = None
            flying.append((bucket, flat, dist.all_reduce(flat, group=self.group, async_op=True)))
        for bucket, flat, work in flying:
            work.wait()
            *parts, there = flat.split([*(parameter.numel() for parameter in bucket), len(bucket)])
            for parameter, part, ranks in zip(bucket, parts, there.tolist(), strict=True):
                if ranks:
                    parameter.grad = part.view_as(parameter)


def squared_norm(parameters: Iterable[Parameter], copies: int) -> Tensor:
    """This rank's part of the squared norm of a gradient that so many ranks hold: (), float64."""
    gradients = (local(parameter.grad) for parameter in parameters if parameter.grad is not None)
    norms = [torch.linalg.vector_norm(gradient).double() for gradient in gradients]
    return torch.stack(norms).square().sum() / copies if norms else torch.zeros((), dtype=torch.float64)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that is spread over ranks; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _gradient(parameter: Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _there(bucket: Sequence[Parameter]) -> Tensor:
    return bucket[0].new_tensor([parameter.grad is not None for parameter in bucket])
