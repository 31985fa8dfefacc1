"""Packed rows give the states of padded ones, and a body that cannot be packed is run as before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModel, BloomConfig, MistralConfig, PretrainedConfig, PreTrainedModel

from mixdpo.policy import packing
from mixdpo.policy.packing import trunk_states

MASK = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [1] + [0] * 8])
IDS = torch.arange(27).view(3, 9) % 60
close = torch.testing.assert_close


def body(config: PretrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModel.from_config(config).eval()


def alone(trunk: PreTrainedModel) -> torch.Tensor:
    """States of each row run by itself, without padding."""
    rows = [ids[: mask.sum()][None] for ids, mask in zip(IDS, MASK, strict=True)]
    return torch.cat([trunk(input_ids=row).last_hidden_state[0] for row in rows])


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_states_and_gradients_are_those_of_each_row_by_itself(
    architecture: str, make_model: Callable[..., PreTrainedModel]
) -> None:
    trunk = make_model(architecture).base_model
    packed, single = trunk_states(trunk, IDS, MASK), alone(trunk)
    assert packing._known[trunk]
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
    found = trunk_states(trunk, IDS, MASK)
    assert not packing._known[trunk]
    assert trunk.config._attn_implementation == usual
    close(found, trunk(input_ids=IDS, attention_mask=MASK).last_hidden_state[MASK.bool()])


@torch.no_grad()
def test_the_body_attends_as_it_did_before_once_packed_rows_are_done(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    trunk = make_model().base_model
    before, usual = alone(trunk), trunk.config._attn_implementation
    trunk_states(trunk, IDS, MASK)
    assert trunk.config._attn_implementation == usual
    close(alone(trunk), before, rtol=0, atol=0)
