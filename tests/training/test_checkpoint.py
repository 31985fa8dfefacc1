from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mixdpo.training import checkpoint
from mixdpo.training.checkpoint import load_checkpoint, save_checkpoint
from mixdpo.training.schedule import adamw


def learner(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(seed))
    return module, adamw([{"params": list(module.parameters()), "lr": 0.1}], 0.01)


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()


def test_parameters_and_moments_come_back(tmp_path: Path) -> None:
    module, optimizer = learner(0)
    learn(module, optimizer, 3)
    save_checkpoint(tmp_path / "work", module, optimizer, {"history": [0.1 + 0.2]})
    other, its_optimizer = learner(1)
    assert load_checkpoint(tmp_path / "work", other, its_optimizer) == {"history": [0.1 + 0.2]}
    learn(module, optimizer, 3)
    learn(other, its_optimizer, 3)
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_is_frozen_is_neither_written_nor_changed(tmp_path: Path) -> None:
    module, optimizer = learner(0)
    module[0].requires_grad_(False)
    learn(module, optimizer, 1)
    save_checkpoint(tmp_path / "work", module, optimizer, {})
    other, its_optimizer = learner(1)
    other[0].requires_grad_(False)
    before = other[0].weight.clone()
    load_checkpoint(tmp_path / "work", other, its_optimizer)
    assert torch.equal(other[0].weight, before)
    assert torch.equal(other[1].weight, module[1].weight)
    names = load_file(tmp_path / "work" / "tensors.safetensors").keys()
    assert {name for name in names if name.startswith("module.")} == {"module.1.weight", "module.1.bias"}


def test_nothing_there_starts_afresh(tmp_path: Path) -> None:
    module, optimizer = learner(0)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    assert load_checkpoint(tmp_path / "work", module, optimizer) is None
    assert all(map(torch.equal, before, module.parameters()))


def test_a_failed_write_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = learner(0)
    learn(module, optimizer, 1)
    save_checkpoint(tmp_path / "work", module, optimizer, {"step": 1})

    def fail(*_: object) -> None:
        raise RuntimeError("killed between tensors and state")

    monkeypatch.setattr(checkpoint, "write_json", fail)
    with pytest.raises(RuntimeError, match="killed between"):
        save_checkpoint(tmp_path / "work", module, optimizer, {"step": 2})
    assert load_checkpoint(tmp_path / "work", module, optimizer) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
