"""Low-rank adapters (LoRA, through peft) in the linear layers of a frozen transformer body (method.md §4).

peft is imported where it is used: it takes seconds, and only these policies need it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mixdpo.errors import ModelError

ADAPTER = "default"  # peft's name for the one adapter that a layer has


def add_adapters(trunk: PreTrainedModel, lora: Mapping[str, Any], generator: torch.Generator) -> None:
    """Freeze a body and put adapters into its linear layers, in place; it computes what it did before.

    Args:
        lora: `rank`, `alpha` and `targets` (names of layers, or ends of their paths; None: all linear ones).
        generator: draws the A of each layer; B is 0.

    Raises:
        ModelError: peft is not installed, or a target names no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ModelError("LoRA adapters need the package peft; install it with `pip install 'mixdpo[lora]'`") from None
    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        target_modules=_linear_layers(trunk, lora["targets"]),
        # GPT-2 stores its linear layers transposed
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in trunk.modules()),
    )
    with torch.random.fork_rng(devices=[]):  # peft draws A from the global generator; ours comes after
        inject_adapter_in_model(config, trunk, ADAPTER)
    draw_adapters(trunk, generator)


@torch.no_grad()
def draw_adapters(trunk: nn.Module, generator: torch.Generator) -> None:
    """Start every adapter of a body anew: A uniform within 1/√width, as LoRA does, and B = 0."""
    for name, parameter in adapters(trunk).items():
        if ".lora_A." in name:
            draw = torch.rand(parameter.shape, generator=generator).mul_(2).sub_(1).div_(math.sqrt(parameter.shape[1]))
            parameter.copy_(draw)
        else:
            parameter.zero_()


def adapters(trunk: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' parameters by the names that peft writes into files; none where there are no adapters."""
    return {
        name.replace(f".{ADAPTER}.", "."): parameter for name, parameter in trunk.named_parameters() if ".lora_" in name
    }


@torch.no_grad()
def perturb_adapters(trunk: nn.Module, scale: float, generator: torch.Generator) -> None:
    """Noise on every B, of `scale` standard deviations of the layer's weights: moves the start off the reference."""
    weights = dict(trunk.named_parameters())
    for name, parameter in adapters(trunk).items():
        if ".lora_B." in name:
            spread = float(weights[name.replace(".lora_B.", ".base_layer.")].std())
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter), alpha=scale * spread)


@torch.no_grad()
def merged_state(trunk: nn.Module) -> dict[str, Tensor]:
    """State of the plain body that computes the same: each adapter added to its layer, W + alpha/rank · B A."""
    state = {
        name.replace(".base_layer.", "."): tensor for name, tensor in trunk.state_dict().items() if ".lora_" not in name
    }
    for name in {name.partition(".lora_")[0] for name in adapters(trunk)}:
        change: Tensor = trunk.get_submodule(name).get_delta_weight(ADAPTER)  # type: ignore[operator]
        state[f"{name}.weight"] = state[f"{name}.weight"] + change
    return state


def _linear_layers(trunk: PreTrainedModel, targets: tuple[str, ...] | None) -> list[str]:
    """Full paths of the linear layers that the targets name."""
    paths = [path for path, module in trunk.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if targets is None:
        return paths
    named = {target: [path for path in paths if f".{path}".endswith(f".{target}")] for target in targets}
    if missing := [target for target, found in named.items() if not found]:
        names = sorted({path.rpartition(".")[2] for path in paths})
        raise ModelError(
            f"LoRA targets {', '.join(missing)} name no linear layer of {type(trunk).__name__}; it has "
            f"{', '.join(names)}: name some of these, or leave targets out to take all"
        )
    return [path for found in named.values() for path in found]
