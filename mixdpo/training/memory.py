"""What a training step needs of a device's memory at its peak, and what is there."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mixdpo.policy.experts import Experts, SharedTrunk
from mixdpo.policy.head_logps import KEPT_BYTES
from mixdpo.policy.layout import Layout
from mixdpo.policy.packing import trunk_states

GIB = 1 << 30
# tokens of the rows by which activations are measured
PROBE = 64
# where a group of processes has a limit: version 2 and version 1 of Linux' control groups
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Needs:
    """Bytes that a step takes at its peak, of one model unless it says otherwise.

    Attributes:
        weights: of all models; they are there already.
        learning: gradients and two moments of whatever learns, of all models.
        token: what a token of the trunk leaves for the way back.
        token_again: the same where layers are run again on the way back.
        layer: what one layer takes of a token while it is run.
        logits: of one head, a completion token.
        state: of the trunk, its copies and their gradients, a completion token.
        models: that run one after another, each with what it leaves for the way back.
    """

    weights: int
    learning: int
    token: float
    token_again: float
    layer: float
    logits: int
    state: int
    models: int

    @classmethod
    def of(cls, experts: Experts, precision: torch.dtype = torch.float32) -> Needs:
        """Measured on the model: whatever its body is, two short forward passes say what a token leaves behind."""
        model, _ = next(experts.models())
        tensors = {id(each): each for each in [*experts.parameters(), *experts.buffers()]}.values()
        token, again = (_left_by_a_token(model, recompute, precision) for recompute in (False, True))
        again = min(again, token)  # of a frozen trunk nothing is kept
        width = model.trunk.get_input_embeddings().weight.shape[1]
        return cls(
            weights=sum(_held(each).nbytes for each in tensors),
            learning=3 * sum(_held(each).nbytes for each in tensors if each.requires_grad),
            token=token,
            token_again=again,
            layer=(token - again) / getattr(model.trunk.config, "num_hidden_layers", 1),
            logits=4 * model.heads.vocabulary,
            state=4 * 4 * width,
            models=1 if isinstance(experts, SharedTrunk) else experts.experts,
        )

    def passing(self, tokens: int, completion_tokens: int, recompute: bool, models: int) -> int:
        """Beside weights, gradients and moments, at the start of the way back.

        Args:
            tokens: of the trunk.
            models: that have been run by then.
        """
        trunk = tokens * (self.token_again if recompute else self.token)
        heads = completion_tokens * self.state + min(KEPT_BYTES, completion_tokens * self.logits)
        return round(models * (trunk + heads) + tokens * self.layer)


def _held(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, which may be spread over several."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _left_by_a_token(model: SharedTrunk, recompute: bool, precision: torch.dtype) -> float:
    length = min(PROBE, model.context or PROBE)
    one, two = (_left_by_rows(model, rows, length, recompute, precision) for rows in (1, 2))
    return (two - one) / length


def _left_by_rows(model: SharedTrunk, rows: int, length: int, recompute: bool, precision: torch.dtype) -> int:
    """Bytes that a forward pass over some rows leaves for the way back, weights not counted."""
    own = {_held(each).untyped_storage().data_ptr() for each in [*model.trunk.parameters(), *model.trunk.buffers()]}
    left: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            left[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = model.trunk.device
    ids = torch.zeros((rows, length), dtype=torch.long, device=device)
    with (
        torch.enable_grad(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor),
    ):
        states = trunk_states(model.trunk, ids, Layout.apart([length] * rows), recompute)
    del states  # lives until here, and with it all that was seen
    return sum(left.values())


def free_bytes(device: torch.device) -> int | None:
    """What this process may still take on the device; None where the system does not tell."""
    if device.type == "cuda":
        # what torch holds and does not use is free to it as well
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    free = []
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
    for limit, used in LIMITS:
        with suppress(OSError, ValueError):  # no such file; or "max", for none
            free.append(int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
    # processes that train together on one machine, as torchrun says, share what it has
    return min(free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if free else None
