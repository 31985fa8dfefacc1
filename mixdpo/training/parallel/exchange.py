"""What ranks tell each other: tensors of known shapes in a step; texts and named tensors around checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mixdpo.training.parallel.ranks import Ranks

Named = dict[str, Tensor]


def all_gather(tensor: Tensor, shape: Sequence[int], ranks: int, group: dist.ProcessGroup | None = None) -> Tensor:
    """A tensor of each rank, filled up with zeros to one shape: (ranks, *shape).

    Args:
        tensor: no larger than `shape` in any dimension, which must be equal on all ranks.
        group: of which there are `ranks`; None: everyone.
    """
    padded = tensor.new_zeros(tuple(shape))
    padded[tuple(slice(size) for size in tensor.shape)] = tensor
    found = tensor.new_empty((ranks * padded.shape[0], *padded.shape[1:]))
    dist.all_gather_single(found, padded, group=group)
    return found.view(ranks, *padded.shape)


@torch.no_grad()
def agree(ranks: Ranks, tensors: Iterable[Tensor]) -> None:
    """Give these tensors the values that they have on rank 0, in place.

    All ranks compute them alike, but on a GPU not to the last bit; what a rank decides by them must be decided alike.
    """
    tensors = list(tensors)
    if ranks.alone or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    dist.broadcast(flat, src=0)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def tell(ranks: Ranks, value: Any) -> Any:
    """What rank 0 has, as JSON can say it, on every rank."""
    text = torch.tensor(list(json.dumps(value).encode()) if ranks.first else [], dtype=torch.uint8)
    size = torch.tensor([len(text)], device=ranks.device)
    dist.broadcast(size, src=0)
    text = text.to(ranks.device) if ranks.first else text.new_empty(int(size), device=ranks.device)
    dist.broadcast(text, src=0)
    return json.loads(bytes(text.tolist()))


def collect(ranks: Ranks, own: Mapping[str, Tensor]) -> list[Named] | None:
    """Named tensors of one rank of each row of the grid: one mapping a row, on the CPU of rank 0; None elsewhere."""
    if ranks.data_place:
        return None
    group = ranks.group("experts")
    described = _described(own).encode()
    sizes = all_gather(torch.tensor([len(described)], device=ranks.device), [1], ranks.experts, group)
    text = torch.tensor(list(described), dtype=torch.uint8, device=ranks.device)
    texts = all_gather(text, [int(sizes.max())], ranks.experts, group)
    if ranks.expert_place:
        for tensor in own.values():
            dist.send(tensor.detach().to(ranks.device).contiguous(), dst=0)
        return None
    found = [{name: tensor.detach().cpu() for name, tensor in own.items()}]
    for place in range(1, ranks.experts):
        about = json.loads(bytes(texts[place, : int(sizes[place])].tolist()))
        part = {name: _empty(shape, kind, ranks.device) for name, (shape, kind) in about.items()}
        for name, tensor in part.items():
            dist.recv(tensor, src=ranks.at(place, 0))
            part[name] = tensor.cpu()
        found.append(part)
    return found


def hand_out(
    ranks: Ranks, whole: Mapping[str, Tensor] | None, keep: Callable[[str, Tensor], tuple[str, Tensor] | None]
) -> Named:
    """Named tensors of rank 0 on every rank, one after another; each keeps what `keep` makes of them, on the CPU.

    Args:
        whole: on rank 0; None elsewhere.
    """
    about = tell(ranks, None if whole is None else json.loads(_described(whole)))
    kept: Named = {}
    for name, (shape, kind) in about.items():
        tensor = _empty(shape, kind, ranks.device) if whole is None else whole[name].to(ranks.device).contiguous()
        dist.broadcast(tensor, src=0)
        mine = keep(name, tensor)
        if mine is not None:
            kept[mine[0]] = mine[1].to("cpu", copy=True)
    return kept


def _described(tensors: Mapping[str, Tensor]) -> str:
    about = {name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in tensors.items()}
    return json.dumps(about)


def _empty(shape: Sequence[int], kind: str, device: torch.device) -> Tensor:
    return torch.empty(tuple(shape), dtype=getattr(torch, kind), device=device)
