"""A run's state in one piece, whatever the ranks: the result, and checkpoints that any number of ranks go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mixdpo.policy.experts import Experts
from mixdpo.training.checkpoint import (
    learned_tensors,
    load_checkpoint,
    read_state,
    read_tensors,
    restore,
    save_checkpoint,
    write_tensors,
)
from mixdpo.training.mixture import Mixture
from mixdpo.training.parallel.exchange import collect, hand_out, tell
from mixdpo.training.parallel.experts import SpreadExperts
from mixdpo.training.parallel.portions import cut, merge
from mixdpo.training.parallel.ranks import Ranks


def spread(mixture: Mixture, ranks: Ranks) -> Mixture:
    """What this rank holds of a mixture that all ranks have whole: its share of the experts, all else as it is."""
    if ranks.alone:
        return mixture
    # to a run it stands for all experts
    own = cast("Experts", SpreadExperts(mixture.experts, ranks))
    return Mixture(own, mixture.weighting, mixture.likelihood)


def take_back(own: Mixture, whole: Mixture) -> None:
    """Give the whole mixture on every rank what all ranks' shares have learned."""
    experts = own.experts
    if not isinstance(experts, SpreadExperts):
        return
    module, target = nn.ModuleDict({"mixture": own}), nn.ModuleDict({"mixture": whole})
    tensors = _gathered(module, None, experts)
    restore(target, None, hand_out(experts.ranks, tensors, lambda name, tensor: (name, tensor)))


def told_state(directory: Path | None, ranks: Ranks) -> dict[str, Any] | None:
    """The `state` of a checkpoint as rank 0 finds it; None where there is none."""
    state = read_state(directory) if directory is not None and ranks.first else None
    return state if ranks.alone else tell(ranks, state)


def save_whole(
    directory: Path,
    module: nn.Module,
    optimizer: Optimizer | None,
    state: dict[str, Any],
    mixture: Mixture,
    ranks: Ranks,
) -> None:
    """As `save_checkpoint`: rank 0 writes what all ranks hold of the mixture in `module`, as one process would."""
    if ranks.alone:
        save_checkpoint(directory, module, optimizer, state)
        return
    if isinstance(mixture.experts, SpreadExperts):
        tensors = _gathered(module, optimizer, mixture.experts)
    else:
        tensors = learned_tensors(module, optimizer)
    if ranks.first and tensors is not None:
        write_tensors(directory, tensors, state)


def load_whole(directory: Path, module: nn.Module, optimizer: Optimizer | None, mixture: Mixture, ranks: Ranks) -> None:
    """As `load_checkpoint`: rank 0 reads, and each rank takes its share; what wrote it may have been other ranks."""
    if ranks.alone:
        load_checkpoint(directory, module, optimizer)
        return
    whole, experts = read_tensors(directory) if ranks.first else None, mixture.experts
    if isinstance(experts, SpreadExperts):
        tensors = hand_out(ranks, whole, lambda name, tensor: cut(name, tensor, experts.held))
        tensors = _sharded(tensors, module)
    else:
        tensors = hand_out(ranks, whole, lambda name, tensor: (name, tensor))
    restore(module, optimizer, tensors)


def _gathered(module: nn.Module, optimizer: Optimizer | None, experts: SpreadExperts) -> dict[str, Tensor] | None:
    """What learns, of all experts, on rank 0."""
    own = {name: _full(tensor) for name, tensor in learned_tensors(module, optimizer).items()}
    parts = collect(experts.ranks, own)
    return None if parts is None else merge(parts, experts.spans)


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _sharded(tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Tensors of parameters that are spread over ranks, and of their moments, cut alike."""
    spread_out = {name: part for name, part in module.named_parameters() if isinstance(part, DTensor)}
    cut_up = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        part = spread_out.get(rest if kind == "module" else rest.rpartition(".")[0])
        if part is not None and tensor.ndim:
            # all ranks have the whole tensor: each takes its part without asking
            tensor = distribute_tensor(tensor.to(part.device), part.device_mesh, part.placements, src_data_rank=None)
        cut_up[name] = tensor
    return cut_up
