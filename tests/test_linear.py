from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from mixdpo.linear import Product, can_pack, laid_out, linear_weights, product_type

CPU = torch.device("cpu")


class Quantised(nn.Linear):
    """Keeps its weight in a form of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1.0


@pytest.fixture
def layers() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(6, 16), nn.GELU(), Conv1D(10, 16), nn.Linear(10, 5, bias=False), Quantised(5, 5))
        nn.init.normal_(made[2].bias)
    return made


X = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("packed", [True, False])
@torch.inference_mode()
def test_layers_compute_the_same_inside_and_are_as_they_were_outside(packed: bool, layers: nn.Sequential) -> None:
    expected = layers(X)
    with laid_out(layers, torch.float32, packed):
        assert [isinstance(layer.forward, Product) for layer in layers] == [True, False, True, True, False]
        torch.testing.assert_close(layers(X), expected, rtol=1e-5, atol=1e-6)
    assert not any("forward" in layer.__dict__ for layer in layers)
    assert torch.equal(layers(X), expected)


@torch.inference_mode()
def test_under_autocast_they_compute_in_its_type(layers: nn.Sequential) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        expected = layers[:4](X)
        dtype = product_type(CPU, torch.float32)
        with laid_out(layers, dtype, packed=can_pack(layers, CPU, dtype)):
            found = layers[:4](X)
    assert found.dtype == dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    assert product_type(CPU, torch.float32) == torch.float32


def test_weights_of_plain_layers_are_counted(layers: nn.Sequential) -> None:
    assert linear_weights(layers) == 6 * 16 + 16 * 10 + 10 * 5
    assert linear_weights(layers[0]) == 6 * 16


def test_what_is_too_large_or_elsewhere_is_not_packed(layers: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not can_pack(layers, torch.device("cuda"), torch.float32)
    monkeypatch.setattr("mixdpo.linear.PACKED_BYTES", 100)
    assert not can_pack(layers, CPU, torch.float32)
