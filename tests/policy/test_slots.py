from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from mixdpo.policy.slots import SlotDecoder, fits, survivors
from mixdpo.policy.whole_batches import BatchDecoder, open_decoder

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
WIDE = {**SHAPE, "intermediate_size": 32}
FIT = {
    "gpt2": GPT2Config(**SHAPE),
    "llama": LlamaConfig(**WIDE, num_key_value_heads=1),
    "qwen3": Qwen3Config(**WIDE, num_key_value_heads=1, head_dim=8),
    "phi": PhiConfig(**WIDE, partial_rotary_factor=0.5),
    "mistral": MistralConfig(**WIDE, num_key_value_heads=1, sliding_window=None),
}
FOREIGN = {
    "mistral-window": MistralConfig(**WIDE, num_key_value_heads=1, sliding_window=4),
    "gpt-neo": GPTNeoConfig(
        **{k: v for k, v in SHAPE.items() if "num" not in k},
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
    ),
}
POSITIONS = 14


def body(config: PretrainedConfig) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.base_model


@pytest.fixture(scope="module")
def trunk_of() -> Callable[[str], PreTrainedModel]:
    trunks = {name: body(config) for name, config in (FIT | FOREIGN).items()}
    return trunks.__getitem__


def rows(count: int, seed: int) -> list[list[int]]:
    drawn = random.Random(seed)
    return [[drawn.randrange(64) for _ in range(drawn.randint(4, POSITIONS))] for _ in range(count)]


def run(decoder: SlotDecoder | BatchDecoder, texts: list[list[int]], seed: int) -> dict[tuple[int, int], torch.Tensor]:
    """Let rows come and go as they end; → state at each (row, position) that the decoder gave."""
    drawn, waiting, here, found = random.Random(seed), list(range(len(texts))), [], {}
    fed: dict[int, int] = {}
    while waiting or here:
        new = [waiting.pop(0) for _ in range(min(decoder.room, len(waiting), drawn.randint(1, 3)))]
        tokens = torch.tensor([texts[row][fed[row]] for row in here], dtype=torch.long)
        fed |= {row: fed[row] + 1 for row in here} | {row: drawn.randint(1, 3) for row in new}
        states = decoder.step(tokens, [texts[row][: fed[row]] for row in new])
        here += new
        found |= {(row, fed[row] - 1): state for row, state in zip(here, states, strict=True)}
        gone = [place for place, row in enumerate(here) if fed[row] == len(texts[row])]
        order = survivors(len(here), gone)
        decoder.keep(order)
        here = [here[place] for place in order]
    return found


@pytest.mark.parametrize("name", [*FIT, *FOREIGN])
@pytest.mark.parametrize("slots", [1, 4])
def test_rows_that_come_and_go_have_the_states_that_each_has_alone(
    name: str, slots: int, trunk_of: Callable[[str], PreTrainedModel]
) -> None:
    trunk, texts = trunk_of(name), rows(9, seed=3)
    decoder = open_decoder(trunk, slots, POSITIONS)
    assert isinstance(decoder, SlotDecoder if name in FIT else BatchDecoder)
    found = run(decoder, texts, seed=slots)
    alone = [trunk(input_ids=torch.tensor([text])).last_hidden_state[0] for text in texts]
    for (row, position), state in found.items():
        torch.testing.assert_close(state, alone[row][position], rtol=1e-4, atol=1e-5)
    assert {row for row, _ in found} == set(range(9))
    assert len(found) >= sum(len(text) - 2 for text in texts)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt-neo"])
def test_a_prompt_of_several_rows_is_run_once(name: str, trunk_of: Callable[[str], PreTrainedModel]) -> None:
    trunk = trunk_of(name)
    decoder = open_decoder(trunk, 6, POSITIONS)
    read: list[int] = []
    hook = trunk.register_forward_pre_hook(lambda *call: read.append(call[-1]["input_ids"].numel()), with_kwargs=True)
    texts = [[*prompt, row] for row, prompt in enumerate([[7, 8, 9], [5, 6], [7, 8, 9], [7, 8, 9], [5, 6]])]
    here: list[list[int]] = []
    if isinstance(decoder, SlotDecoder):  # beside a row that goes on
        here.append([1, 2, 3, 4])
        decoder.step(torch.empty(0, dtype=torch.long), [here[0][:3]])
        read.clear()
    states = [decoder.step(torch.tensor([row[3] for row in here]).long(), [text[:-1] for text in texts])]
    assert read == [len(here) + 5 if here else 2 * 3]  # padded where all start together
    states.append(decoder.step(torch.tensor([11 for _ in here] + [text[-1] for text in texts]), []))
    order = [len(here) + row for row in (4, 1, 2)]
    decoder.keep(order)
    states.append(decoder.step(torch.tensor([12, 13, 14]), []))
    hook.remove()
    now = [[*row, 11] for row in here] + texts
    expected = [row[:-1] for row in now] + now + [[*now[place], 12 + n] for n, place in enumerate(order)]
    for state, text in zip(torch.cat(states), expected, strict=True):
        alone = trunk(input_ids=torch.tensor([text])).last_hidden_state[0, -1]
        torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-5)


def test_the_cache_is_made_once(trunk_of: Callable[[str], PreTrainedModel]) -> None:
    decoder = SlotDecoder(trunk_of("gpt2"), 3, POSITIONS)
    decoder.step(torch.empty(0, dtype=torch.long), [[1, 2]])
    where = [tensor.data_ptr() for pair in decoder.cache.values() for tensor in pair]
    assert [tuple(tensor.shape) for pair in decoder.cache.values() for tensor in pair] == 4 * [(3, 2, POSITIONS, 8)]
    decoder.keep([])
    run(decoder, rows(9, seed=0), seed=0)
    assert [tensor.data_ptr() for pair in decoder.cache.values() for tensor in pair] == where


def test_a_body_is_left_as_it_was(trunk_of: Callable[[str], PreTrainedModel]) -> None:
    trunk = trunk_of("llama")
    usual = trunk.config._attn_implementation
    assert fits(trunk)
    assert trunk.config._attn_implementation == usual
    with pytest.raises(IndexError):  # a token that the model does not know
        SlotDecoder(trunk, 1, POSITIONS).step(torch.empty(0, dtype=torch.long), [[99]])
    assert trunk.config._attn_implementation == usual


def test_nobody_joins_a_batch_that_began_together(trunk_of: Callable[[str], PreTrainedModel]) -> None:
    decoder = BatchDecoder(trunk_of("mistral-window"), 3)
    assert decoder.room == 3
    decoder.step(torch.empty(0, dtype=torch.long), [[1, 2], [3]])
    assert decoder.room == 0
    decoder.keep([1])
    assert decoder.room == 0
    decoder.keep([])
    assert decoder.room == 3


@given(st.integers(0, 20).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0))))))
def test_those_behind_fill_the_gaps(case: tuple[int, set[int]]) -> None:
    count, gone = case
    gone = {place for place in gone if place < count}
    order = survivors(count, sorted(gone))
    assert sorted(order) == sorted(set(range(count)) - gone)
    moved = [(old, new) for new, old in enumerate(order) if old != new]
    # no slot is written that is still to be read, and only gaps are filled
    assert all(old >= len(order) and new in gone for old, new in moved)
