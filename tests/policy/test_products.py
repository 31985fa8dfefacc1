from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mixdpo.policy import MixturePolicy
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.products import PAYS_AFTER, HeadProducts, ready

MakePolicy = Callable[..., MixturePolicy]
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def trunk_of(policy: MixturePolicy) -> SharedTrunk:
    return next(policy.expert_models.models())[0]


@torch.no_grad()
def states(model: SharedTrunk) -> torch.Tensor:
    found: torch.Tensor = model.trunk(input_ids=IDS).last_hidden_state[0]
    return found


def replaced(model: SharedTrunk) -> int:
    return sum("forward" in module.__dict__ for module in model.trunk.modules())


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["linear", "lowrank", "independent-lora"])
@pytest.mark.parametrize("passes", [1, PAYS_AFTER])
def test_ready_layers_compute_the_same_and_are_gone_afterwards(
    passes: int, kind: str, architecture: str, make_policy: MakePolicy
) -> None:
    model = trunk_of(make_policy(kind, architecture))
    before = states(model)
    with ready([model], passes, 2) as heads:
        assert replaced(model) > 4
        torch.testing.assert_close(states(model), before, rtol=1e-5, atol=1e-5)
        assert list(heads) == [model]
    assert replaced(model) == 0
    assert torch.equal(states(model), before)


@pytest.mark.parametrize(("rows", "dtype"), [(1, torch.float32), (2, torch.float32), (1, torch.bfloat16)])
def test_one_row_in_float32_needs_no_layout(rows: int, dtype: torch.dtype, make_policy: MakePolicy) -> None:
    model = trunk_of(make_policy("linear", "llama"))
    with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16), ready([model], PAYS_AFTER, rows):
        layer = model.trunk.layers[0].mlp.down_proj.forward
        assert layer.packed == (rows > 1 or dtype is torch.bfloat16)


def test_an_error_inside_leaves_the_model_as_it_was(make_policy: MakePolicy) -> None:
    model = trunk_of(make_policy())
    with pytest.raises(ZeroDivisionError), ready([model], PAYS_AFTER, 2):
        raise ZeroDivisionError
    assert replaced(model) == 0


@pytest.mark.parametrize("kind", ["linear", "lowrank"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("counts", [[2, 0, 3], [0, 5, 0], [1, 2, 2]])
@torch.no_grad()
def test_each_row_meets_its_own_head(counts: list[int], packed: bool, kind: str, make_policy: MakePolicy) -> None:
    heads = trunk_of(make_policy(kind)).heads
    hidden = torch.randn(sum(counts), 16, generator=torch.Generator().manual_seed(0))
    found = HeadProducts(heads, torch.float32, packed)(hidden, counts)
    author = torch.repeat_interleave(torch.tensor(counts))
    expected = heads(hidden)[torch.arange(len(hidden)), author]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_under_autocast_products_are_done_in_its_type_and_weights_are_cast_once(make_policy: MakePolicy) -> None:
    model = trunk_of(make_policy("linear", "llama"))
    with torch.autocast("cpu", torch.bfloat16):
        before = states(model)
        with ready([model], PAYS_AFTER, 2) as heads:
            layer = model.trunk.layers[0].mlp.down_proj
            assert layer.forward.weight.dtype == torch.bfloat16
            torch.testing.assert_close(states(model), before, rtol=0.02, atol=0.02)
            assert heads[model](before, [5, 0, 0]).dtype == torch.float32
