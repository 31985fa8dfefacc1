"""Packed rows give the states of padded ones, and a body that cannot be packed is run as before."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModel,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from mixdpo.policy import packing
from mixdpo.policy.layout import Layout
from mixdpo.policy.packing import trunk_states

IDS = torch.arange(36).view(4, 9) % 60
IDS[3, :3] = IDS[0, :3]
# the last row begins as the first one does
LAYOUT = Layout([9, 4, 1, 6], [0, 1, 2, 0], [0, 0, 0, 3])
close = torch.testing.assert_close


SHAPE = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SHAPE, "intermediate_size": 16, "num_key_value_heads": 2}  # fewer key than query heads
CONFIGS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**SHAPE),
    "llama": LlamaConfig(**GROUPED),
    "qwen2": Qwen2Config(**GROUPED),
    "neox": GPTNeoXConfig(**SHAPE, intermediate_size=16),
}


def body(config: PretrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModel.from_config(config).eval()


def alone(trunk: PreTrainedModel) -> torch.Tensor:
    """States of each row's own tokens, the row run by itself, without padding."""
    rows = [
        trunk(input_ids=ids[:length][None]).last_hidden_state[0, shared:]
        for ids, length, shared in zip(IDS, LAYOUT.lengths, LAYOUT.shared, strict=True)
    ]
    return torch.cat(rows)


@pytest.fixture(params=["row by row", "padded inside"])
def attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a processor attends, and how a GPU does."""
    if request.param == "padded inside":
        monkeypatch.setattr(packing, "_row_by_row", packing._padded_inside)


@pytest.mark.usefixtures("attention")
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2", "neox"])
def test_states_and_gradients_are_those_of_each_row_by_itself(architecture: str, recompute: bool) -> None:
    trunk = body(CONFIGS[architecture])
    packed, single = trunk_states(trunk, IDS, LAYOUT, recompute), alone(trunk)
    assert packing.packs(trunk)
    close(packed, single, rtol=1e-4, atol=1e-5)
    weights = list(trunk.parameters())
    found, wanted = (torch.autograd.grad(each.square().sum(), weights, allow_unused=True) for each in (packed, single))
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one - other).norm() <= 1e-4 * other.norm() + 1e-6


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=3,
        ),
        BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2),
    ],
    ids=["a window", "no positions"],
)
@torch.no_grad()
def test_a_body_that_needs_more_than_causal_attention_is_padded(config: PretrainedConfig) -> None:
    trunk = body(config)
    usual = trunk.config._attn_implementation
    found = trunk_states(trunk, IDS, LAYOUT)
    assert not packing.packs(trunk)
    assert trunk.config._attn_implementation == usual
    close(found, alone(trunk))


@torch.no_grad()
def test_the_body_attends_as_it_did_before_once_packed_rows_are_done() -> None:
    trunk = body(CONFIGS["gpt2"])
    before, usual = alone(trunk), trunk.config._attn_implementation
    trunk_states(trunk, IDS, LAYOUT)
    assert trunk.config._attn_implementation == usual
    close(alone(trunk), before, rtol=0, atol=0)
