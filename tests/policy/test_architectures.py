"""Any decoder with a plain output head carries every kind of expert: GPT-2, Llama, Qwen, NeoX, Phi; tied or not."""

from __future__ import annotations

import copy
import string
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2Tokenizer,
    Qwen3Config,
)

from mixdpo.policy import MixturePolicy
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.tokens import TokenRow, pad
from mixdpo.policy.weighting import PriorWeights

END = "<end>"
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
WIDE = {**SHAPE, "intermediate_size": 32}
GROUPED = {**WIDE, "num_key_value_heads": 1}  # fewer key than query heads
SHAPES: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**SHAPE),
    "gpt2-untied": GPT2Config(**SHAPE, tie_word_embeddings=False),
    "llama": LlamaConfig(**GROUPED),
    "llama-tied": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "qwen2-tied": Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "neox": GPTNeoXConfig(**WIDE),
    "neox-tied": GPTNeoXConfig(**WIDE, tie_word_embeddings=True),
    "phi-with-head-bias": PhiConfig(**WIDE, partial_rotary_factor=0.5),
}
LORA = {"rank": 2, "alpha": 4.0, "targets": None}
KINDS = {
    "linear": {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"},
    "lowrank": {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "frozen"},
    "independent-lora": {"kind": "independent", "lora": LORA},
}
PROMPTS, COMPLETIONS = ["the cat", "a", "the dog sat"], [" sat on it", "", " did not"]
close = torch.testing.assert_close


@cache
def letters() -> PreTrainedTokenizerBase:
    """A token a letter. Of this class, because transformers reads any tokenizer beside a Qwen2 model as one."""
    words = {letter: place for place, letter in enumerate([END, *string.ascii_letters, *string.digits, "Ġ"])}
    return Qwen2Tokenizer(words, merges=[], unk_token=END, bos_token=END, eos_token=END, pad_token=END)


@cache
def model_of(shape: str) -> PreTrainedModel:
    # transformers draws new weights from the global generator, which other tests move
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(SHAPES[shape]).eval()
    shake(model, 0)
    return model


@torch.no_grad()
def shake(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)


@cache
def policy_of(shape: str, kind: str, apart: bool = True) -> MixturePolicy:
    model = copy.deepcopy(model_of(shape))
    reference = frozen_reference(copy.deepcopy(model))
    experts = new_experts(model, 2, KINDS[kind], torch.Generator().manual_seed(1))
    if apart:
        shake(experts, 2)
    description = {"architecture": KINDS[kind]}
    return MixturePolicy(
        experts, PriorWeights.uniform(2), reference, letters(), Likelihood(0.5), "annotator", description
    ).requires_grad_(False)


def said_by(model: PreTrainedModel) -> torch.Tensor:
    """log π(completion | prompt) of a plain causal language model, each row by itself: (rows,)."""
    tokenizer, rows = letters(), []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        before = [0, *tokenizer(prompt)["input_ids"]]
        after = torch.tensor([*tokenizer(completion)["input_ids"], 0])
        log_probs = model(input_ids=torch.tensor([[*before, *after]])).logits[0].log_softmax(dim=-1)
        rows.append(log_probs[len(before) - 1 : -1].gather(-1, after[:, None]).sum())
    return torch.stack(rows)


each_shape = pytest.mark.parametrize("shape", SHAPES)
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_shape
@each_kind
@torch.no_grad()
def test_before_training_every_expert_is_the_model_and_no_margin_differs_from_zero(shape: str, kind: str) -> None:
    policy = policy_of(shape, kind, apart=False)
    close(policy.logps(PROMPTS, COMPLETIONS), said_by(model_of(shape))[:, None].expand(-1, 2))
    margins = policy.margins(PROMPTS, COMPLETIONS, COMPLETIONS[::-1])
    close(margins, torch.zeros(3, 2), rtol=0, atol=1e-5)


@each_shape
@each_kind
@torch.no_grad()
def test_what_is_saved_loads_to_the_same_and_an_export_is_a_plain_model(shape: str, kind: str, tmp_path: Path) -> None:
    policy = policy_of(shape, kind)
    logps = policy.logps(PROMPTS, COMPLETIONS)
    assert (logps[:, 0] - logps[:, 1]).abs().min() > 1e-3
    loaded = MixturePolicy.from_pretrained(policy.save_pretrained(tmp_path / "mixture"))
    close(loaded.logps(PROMPTS, COMPLETIONS), logps, rtol=0, atol=0)
    close(loaded.reference_logps(PROMPTS, COMPLETIONS), said_by(model_of(shape)))
    plain = AutoModelForCausalLM.from_pretrained(policy.export_expert(1, tmp_path / "expert"))
    assert type(plain) is type(model_of(shape))
    close(said_by(plain), logps[:, 1], rtol=1e-5, atol=1e-4)


@each_shape
@each_kind
@torch.no_grad()
def test_padding_and_batch_order_change_no_log_prob(shape: str, kind: str) -> None:
    experts = policy_of(shape, kind).expert_models
    rows = [TokenRow([0, 5, 6], [7, 8, 0]), TokenRow([0], [9]), TokenRow([0, *range(10, 30)], [3, 4, 5, 6])]
    together = experts(pad(rows))
    close(torch.cat([experts(pad([row])) for row in rows]), together, rtol=1e-5, atol=1e-4)
    close(experts(pad(rows[::-1])).flip(0), together, rtol=1e-5, atol=1e-4)


@each_shape
@each_kind
def test_sampling_with_a_cache_writes_what_a_plain_forward_pass_would(shape: str, kind: str) -> None:
    policy = policy_of(shape, kind)
    for mode in ("sequence", "token"):
        together = policy.generate(PROMPTS, mode=mode, max_new_tokens=4, seed=3)
        assert policy.generate(PROMPTS, mode=mode, max_new_tokens=4, seed=3, batch=1) == together
    written = policy.generate(PROMPTS, expert=1, max_new_tokens=5, temperature=0)
    model, head = list(policy.expert_models.models())[1]
    for prompt, text in zip(PROMPTS, written.texts, strict=True):
        ids = [0, *letters()(prompt)["input_ids"]]
        start = len(ids)
        while len(ids) < start + 5 and (len(ids) == start or ids[-1] != 0):
            states = model.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0, -1:]
            ids.append(int(model.heads.one(states, head).argmax()))
        assert text == letters().decode([token for token in ids[start:] if token])
