"""A training run's state on disk, without pickle: tensors in safetensors, everything else in JSON.

Checkpoints live in an untracked directory that is named after a digest of all inputs (docs/decisions/0003): a run with
other parameters, data or code looks elsewhere, so nothing stale is ever resumed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from mixdpo.files import replacing, write_json


def save_checkpoint(directory: Path, module: nn.Module, optimizer: Optimizer | None, state: dict[str, Any]) -> None:
    """Write what learns, buffers, optimiser moments and `state` (JSON), whole or not at all.

    Frozen parameters stay out: they are as the run's inputs make them, and adapters may be few beside a large base.

    Args:
        optimizer: None where a run has ended and its moments are of no more use.
    """
    frozen = _frozen(module)
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items() if name not in frozen}
    for index, moments in optimizer.state_dict()["state"].items() if optimizer else ():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    with replacing(directory) as target:
        target.mkdir(parents=True)
        save_file(
            {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()},
            target / "tensors.safetensors",
        )
        write_json(target / "state.json", state)


def read_state(directory: Path) -> dict[str, Any] | None:
    """The `state` of a checkpoint; None where there is none."""
    path = directory / "state.json"
    if not path.is_file():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state


def load_checkpoint(directory: Path, module: nn.Module, optimizer: Optimizer | None) -> dict[str, Any] | None:
    """Restore what `save_checkpoint` wrote into module and optimiser; its `state`, or None where there is nothing."""
    state = read_state(directory)
    if state is None:
        return None
    tensors = load_file(directory / "tensors.safetensors")
    kept = {name: tensor for name, tensor in module.state_dict().items() if name in _frozen(module)}
    saved = {n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")}
    module.load_state_dict(kept | saved)
    if optimizer is None:
        return state
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, moment = name.split(".", 2)
            moments.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return state


def _frozen(module: nn.Module) -> set[str]:
    # by every name that a shared parameter has
    return {name for name, part in module.named_parameters(remove_duplicate=False) if not part.requires_grad}
