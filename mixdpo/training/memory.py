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
# what a process takes for libraries and kernels once it steps, and what gaps between buffers add to what lies in them;
# measured (docs/performance.md): in bfloat16 a product has a kernel for its shape, and buffers are of two sizes
LIBRARIES, LIBRARIES_HALF = 32 << 20, 96 << 20
GAPS, GAPS_HALF = 1.1, 1.25
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
        copies: of a trunk's weights in the type of products.
        process: of libraries and kernels, whatever the batch.
        gaps: memory taken over memory asked for.
    """

    weights: int
    learning: int
    token: float
    token_again: float
    layer: float
    logits: int
    state: int
    models: int
    copies: int
    process: int
    gaps: float

    @classmethod
    def of(cls, experts: Experts, precision: torch.dtype = torch.float32) -> Needs:
        """Measured on the model: whatever its body is, two short forward passes say what a token leaves behind."""
        model, _ = next(experts.models())
        tensors = {id(each): each for each in [*experts.parameters(), *experts.buffers()]}.values()
        token, copies = _left_by_a_token(model, False, precision)
        again = min(_left_by_a_token(model, True, precision)[0], token)  # of a frozen trunk nothing is kept
        half = precision == torch.bfloat16
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
            copies=copies,
            process=LIBRARIES_HALF if half else LIBRARIES,
            gaps=GAPS_HALF if half else GAPS,
        )

    def passing(self, tokens: int, completion_tokens: int, recompute: bool, models: int) -> int:
        """Beside weights, gradients, moments and what the process takes, at the start of the way back.

        Args:
            tokens: of the trunk.
            models: that have been run by then.
        """
        trunk = tokens * (self.token_again if recompute else self.token)
        heads = completion_tokens * self.state + min(KEPT_BYTES, completion_tokens * self.logits)
        return round(self.gaps * (models * (self.copies + trunk + heads) + tokens * self.layer))


def _held(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, which may be spread over several."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _left_by_a_token(model: SharedTrunk, recompute: bool, precision: torch.dtype) -> tuple[float, int]:
    """What a token leaves, and what any number of tokens does."""
    length = min(PROBE, model.context or PROBE)
    one, two = (_left_by_rows(model, rows, length, recompute, precision) for rows in (1, 2))
    return (two - one) / length, max(0, 2 * one - two)


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
