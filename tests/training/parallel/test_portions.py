from __future__ import annotations

from typing import Any

import pytest
import torch
from at_work import LORA, LOW_RANK, POLICY, SETTINGS, TRAINABLE, mixture_of, pairs
from torch import Tensor, nn

from mixdpo.config.policy import Policy
from mixdpo.config.training import Training
from mixdpo.training.checkpoint import learned_tensors
from mixdpo.training.parallel.portions import cut, merge
from mixdpo.training.parallel.shares import expert_spans
from mixdpo.training.schedule import adamw

WHOLE = {"kind": "independent"}


def checkpoint(architecture: dict[str, Any]) -> dict[str, Tensor]:
    """What a checkpoint of four experts holds after one step, no two tensors alike."""
    policy = Policy.model_validate(POLICY | {"architecture": architecture})
    mixture = mixture_of(policy, Training.model_validate(SETTINGS), pairs(4, 2, 0))
    learning = [parameter for parameter in mixture.parameters() if parameter.requires_grad]
    optimizer = adamw([{"params": learning, "lr": 0.1}], 0.0)
    draw = torch.Generator().manual_seed(0)
    for parameter in learning:
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    optimizer.step()
    return learned_tensors(nn.ModuleDict({"mixture": mixture}), optimizer)


@pytest.mark.parametrize("architecture", [WHOLE, TRAINABLE, LOW_RANK, LORA], ids=["whole", "linear", "lowrank", "lora"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_what_ranks_hold_makes_the_whole_again(architecture: dict[str, Any], ranks: int) -> None:
    whole = checkpoint(architecture)
    spans = expert_spans(4, ranks)
    parts = [dict(filter(None, (cut(name, tensor, held) for name, tensor in whole.items()))) for held in spans]
    again = merge(parts, spans)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    # and no rank holds what it does not need
    assert sum(map(of_experts, parts)) == of_experts(whole)


def of_experts(tensors: dict[str, Tensor]) -> int:
    """How many numbers belong to single experts; the optimiser's counts of steps are everybody's."""
    return sum(
        tensor.numel()
        for name, tensor in tensors.items()
        if (".heads." in name or ".members." in name) and not name.endswith(".step")
    )
