"""From the tensors of a whole mixture to those that a rank holds, and back: for checkpoints of any number of ranks.

Tensors are named as in `training.checkpoint`. Three kinds are told apart by name: those of an expert that is a model of
its own, which one rank has under another number; heads stacked over one trunk, of which a rank has some slices; and
everything else, which all ranks have alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# how the module that holds a rank's experts names them; in a whole mixture "own." is not there
OWN = ".experts.own."
MEMBER = re.compile(r"\.experts\.members\.(\d+)\.")
HEADS = ".experts.heads."


def cut(name: str, tensor: Tensor, held: range) -> tuple[str, Tensor] | None:
    """What a rank that holds these experts has of a tensor of the whole, by its own name; None where it has nothing."""
    member = MEMBER.search(name)
    if member is not None:
        expert = int(member[1])
        if expert not in held:
            return None
        name = f"{name[: member.start(1)]}{expert - held.start}{name[member.end(1) :]}"
    elif HEADS in name and tensor.ndim:
        tensor = tensor[held.start : held.stop]
    return name.replace(".experts.", OWN, 1), tensor


def merge(parts: Sequence[Mapping[str, Tensor]], spans: Sequence[range]) -> dict[str, Tensor]:
    """The tensors of the whole from those of ranks that together hold all experts.

    Args:
        parts: one mapping for each span, by the ranks' own names.
    """
    whole: dict[str, Tensor] = {}
    slices: dict[str, list[Tensor]] = {}
    for part, held in zip(parts, spans, strict=True):
        for own_name, tensor in part.items():
            name = own_name.replace(OWN, ".experts.", 1)
            if member := MEMBER.search(name):
                expert = int(member[1]) + held.start
                whole[f"{name[: member.start(1)]}{expert}{name[member.end(1) :]}"] = tensor
            elif HEADS in name and tensor.ndim:
                slices.setdefault(name, []).append(tensor)
            else:
                whole.setdefault(name, tensor)
    return whole | {name: torch.cat(tensors) for name, tensors in slices.items()}
