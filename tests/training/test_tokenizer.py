from __future__ import annotations

import pytest
import torch

from mixdpo.config.models import FromConfig
from mixdpo.training.tokenizer import END_OF_TEXT, new_causal_lm, train_bpe

TEXTS = ["the cat sat on the mat", "a mat, the cat's own"] * 3


@pytest.mark.parametrize("text", ["the cat", " naïve 猫 🐈\n\ttabs", "", "Ünïcode…", "a  b"])
def test_no_text_is_out_of_vocabulary(text: str) -> None:
    tokenizer = train_bpe(TEXTS, 300, 64)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_one_special_token_serves_all_and_the_vocabulary_is_kept() -> None:
    tokenizer = train_bpe(TEXTS, 270, 64)
    assert len(tokenizer) == 270
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == END_OF_TEXT
    assert train_bpe(TEXTS, 270, 64).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen", "neox"])
def test_a_new_model_comes_from_its_seed_and_leaves_the_global_generator(architecture: str) -> None:
    tokenizer = train_bpe(TEXTS, 270, 64)
    shape = FromConfig(
        kind="config", architecture=architecture, vocabulary=300, layers=1, width=16, heads=2, context=64
    )
    state = torch.get_rng_state()
    first, again, other = (new_causal_lm(shape, tokenizer, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.get_output_embeddings().weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.config.vocab_size == 270
    assert first.config.eos_token_id == tokenizer.eos_token_id


def test_a_new_model_has_no_dropout() -> None:
    tokenizer = train_bpe(TEXTS, 270, 64)
    shape = FromConfig(kind="config", architecture="gpt2", vocabulary=300, layers=1, width=16, heads=2, context=64)
    model = new_causal_lm(shape, tokenizer, 0).train()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
