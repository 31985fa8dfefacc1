"""A training run's state on disk, without pickle: tensors in safetensors, everything else in JSON.

Checkpoints live in an untracked directory that is named after a digest of all inputs (docs/decisions/0003): a run with
other parameters, data or code looks elsewhere, so nothing stale is ever resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from mixdpo.files import replacing, write_json

MODULE, MOMENTS = "module.", "moments."


def save_checkpoint(directory: Path, module: nn.Module, optimizer: Optimizer | None, state: dict[str, Any]) -> None:
    """Write what learns, buffers, optimiser moments and `state` (JSON), whole or not at all.

    Frozen parameters stay out: they are as the run's inputs make them, and adapters may be few beside a large base.

    Args:
        optimizer: None where a run has ended and its moments are of no more use.
    """
    write_tensors(directory, learned_tensors(module, optimizer), state)


def load_checkpoint(directory: Path, module: nn.Module, optimizer: Optimizer | None) -> dict[str, Any] | None:
    """Restore what `save_checkpoint` wrote into module and optimiser; its `state`, or None where there is nothing."""
    state = read_state(directory)
    if state is not None:
        restore(module, optimizer, read_tensors(directory))
    return state


def learned_tensors(module: nn.Module, optimizer: Optimizer | None) -> dict[str, Tensor]:
    """What learns, buffers and moments, by name: `module.NAME` and `moments.NAME.MOMENT`."""
    frozen = _frozen(module)
    tensors = {f"{MODULE}{name}": tensor for name, tensor in module.state_dict().items() if name not in frozen}
    for name, parameter in module.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items() if optimizer else ():
            tensors[f"{MOMENTS}{name}.{moment}"] = torch.as_tensor(value)
    return tensors


def restore(module: nn.Module, optimizer: Optimizer | None, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `learned_tensors` gave; what is frozen stays as it is."""
    frozen = _frozen(module)
    kept = {name: tensor for name, tensor in module.state_dict().items() if name in frozen}
    module.load_state_dict(
        kept | {name.removeprefix(MODULE): tensor for name, tensor in tensors.items() if name.startswith(MODULE)}
    )
    if optimizer is None:
        return
    moments: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(MOMENTS):
            parameter, _, moment = name.removeprefix(MOMENTS).rpartition(".")
            moments.setdefault(parameter, {})[moment] = tensor
    place = {parameter: index for index, parameter in enumerate(_in_order(optimizer))}
    state = {place[parameter]: moments[name] for name, parameter in module.named_parameters() if name in moments}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def write_tensors(directory: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Write named tensors and `state` (JSON), whole or not at all."""
    with replacing(directory) as target:
        target.mkdir(parents=True)
        save_file(
            {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()},
            target / "tensors.safetensors",
        )
        write_json(target / "state.json", state)


def read_tensors(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "tensors.safetensors")


def read_state(directory: Path) -> dict[str, Any] | None:
    """The `state` of a checkpoint; None where there is none."""
    path = directory / "state.json"
    if not path.is_file():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state


def _frozen(module: nn.Module) -> set[str]:
    # by every name that a shared parameter has
    return {name for name, part in module.named_parameters(remove_duplicate=False) if not part.requires_grad}


def _in_order(optimizer: Optimizer) -> list[Parameter]:
    """Parameters as an optimiser's state counts them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
