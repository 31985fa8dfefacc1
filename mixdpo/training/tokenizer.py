"""A byte-level BPE tokenizer, and a causal language model of a chosen shape to go with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

if TYPE_CHECKING:
    from mixdpo.config.models import FromConfig

END_OF_TEXT = "<|endoftext|>"


def train_bpe(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE, so that no text is out of vocabulary; one special token is BOS, EOS and padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=context,
    )


def new_causal_lm(shape: FromConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A randomly started model of this shape, without dropout, its vocabulary that of the tokenizer."""
    end = tokenizer.eos_token_id
    shared = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": shape.context,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    wide = {"intermediate_size": 4 * shape.width}
    config: PretrainedConfig
    match shape.architecture:
        case "gpt2":
            config = GPT2Config(**shared, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        case "llama":
            config = LlamaConfig(**shared, **wide)
        case "qwen":
            config = Qwen3Config(**shared, **wide, num_key_value_heads=shape.heads, head_dim=shape.width // shape.heads)
        case "neox":
            config = GPTNeoXConfig(**shared, **wide)
    # initialisation inside transformers draws from the global generator: lend it ours
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config)
