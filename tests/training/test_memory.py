from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixdpo.policy.loading import new_experts
from mixdpo.training import memory
from mixdpo.training.memory import Needs, free_bytes

Make = Callable[..., Any]
CPU = torch.device("cpu")
TRAINABLE = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}
LOWRANK = {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "frozen"}


def needs(new_model: Make, architecture: dict[str, Any], experts: int = 2) -> Needs:
    return Needs.of(new_experts(new_model(), experts, architecture, torch.Generator()))


def test_weights_gradients_and_moments_are_counted_once(new_model: Make) -> None:
    model = new_model()
    body = sum(parameter.nbytes for parameter in model.base_model.parameters())
    head = model.lm_head.weight.nbytes
    found = needs(new_model, TRAINABLE, 3)
    assert found.weights == body + 3 * head
    assert found.learning == 3 * found.weights
    whole = needs(new_model, {"kind": "independent"}, 3)
    assert whole.weights == 3 * (body + head)
    assert whole.models == 3
    frozen = needs(new_model, LOWRANK, 3)
    assert frozen.learning == 3 * 3 * 4 * 2 * sum(model.lm_head.weight.shape)  # copies, experts, bytes, rank
    assert frozen.token == frozen.token_again == frozen.layer == 0


def test_what_a_token_leaves_is_what_autograd_saves(new_model: Make) -> None:
    found = needs(new_model, TRAINABLE)
    # a layer 16 wide: attention's input, query, key, value and result, two norms, 4·16 before GELU and after it
    assert 4 * 16 * 14 < found.token < 4 * 16 * 24
    assert found.token_again < 4 * 16 * 8
    assert found.layer == found.token - found.token_again


def test_passing_grows_with_tokens_and_models_and_shrinks_where_layers_are_run_again(new_model: Make) -> None:
    found = needs(new_model, TRAINABLE)
    whole = found.passing(100, 50, recompute=False, models=1)
    assert found.passing(100, 50, recompute=True, models=1) < whole < found.passing(101, 50, recompute=False, models=1)
    assert whole < found.passing(100, 51, recompute=False, models=1)
    assert whole < found.passing(100, 50, recompute=False, models=2) < 2 * whole
    far = 10**9
    one_more = found.passing(0, far + 1, False, 1) - found.passing(0, far, False, 1)
    assert one_more == pytest.approx(found.gaps * found.state, abs=1)  # logits wait up to a bound


def test_in_bfloat16_weights_of_products_are_there_twice(new_model: Make) -> None:
    wide = needs(new_model, TRAINABLE)
    half = Needs.of(new_experts(new_model(), 2, TRAINABLE, torch.Generator()), torch.bfloat16)
    assert wide.copies == 0
    assert half.copies == 2 * 12 * 16 * 16  # four products of a layer
    assert half.token < wide.token
    assert half.process > wide.process
    assert half.gaps > wide.gaps > 1


def test_free_memory_is_what_the_machine_and_its_control_group_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = free_bytes(CPU)
    assert whole is not None
    assert whole > 1 << 20
    limit, used = tmp_path / "limit", tmp_path / "used"
    used.write_text("1000\n")
    monkeypatch.setattr(memory, "LIMITS", [(str(limit), str(used))])
    limit.write_text("5000\n")
    assert free_bytes(CPU) == 4000
    limit.write_text("max\n")
    assert free_bytes(CPU) != 4000
