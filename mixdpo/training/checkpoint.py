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


def save_checkpoint(directory: Path, module: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Write parameters, buffers, optimiser moments and `state` (JSON), whole or not at all."""
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    with replacing(directory) as target:
        target.mkdir(parents=True)
        save_file(
            {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()},
            target / "tensors.safetensors",
        )
        write_json(target / "state.json", state)


def load_checkpoint(directory: Path, module: nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
    """Restore what `save_checkpoint` wrote into module and optimiser; None where there is none."""
    if not (directory / "state.json").is_file():
        return None
    tensors = load_file(directory / "tensors.safetensors")
    module.load_state_dict({n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, moment = name.split(".", 2)
            moments.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    state: dict[str, Any] = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    return state
