from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import ModelError
from mixdpo.policy.loading import load_causal_lm
from mixdpo.training.tokenizer import train_bpe


@pytest.fixture
def saved(
    make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> tuple[PreTrainedModel, Path]:
    model = make_model("llama")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return model, tmp_path


@torch.no_grad()
def test_a_directory_gives_the_model_and_the_tokenizer_that_were_saved(
    saved: tuple[PreTrainedModel, Path], tokenizer: PreTrainedTokenizerBase
) -> None:
    model, directory = saved
    found, its_tokenizer = load_causal_lm(directory)
    ids = torch.tensor([its_tokenizer("the cat sat")["input_ids"]])
    assert ids[0].tolist() == tokenizer("the cat sat")["input_ids"]
    torch.testing.assert_close(found(input_ids=ids).logits, model(input_ids=ids).logits)
    assert found.dtype == torch.float32
    assert not found.training


def test_another_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        load_causal_lm(tmp_path)
    assert f"causal language model '{tmp_path}' (revision None): the directory is not a causal" in str(error.value)
    assert "expected a directory with config.json, model.safetensors and a tokenizer" in str(error.value)


def test_a_tokenizer_with_more_tokens_than_the_model_embeds_is_refused(saved: tuple[PreTrainedModel, Path]) -> None:
    _, directory = saved
    larger = train_bpe(["many other words make a larger vocabulary than the mat"] * 3, 300, 64)
    larger.save_pretrained(directory)
    with pytest.raises(ModelError) as error:
        load_causal_lm(directory)
    assert f"the tokenizer has {len(larger)} tokens but the model embeds" in str(error.value)
    assert str(error.value).endswith("they do not belong together, name a matching pair")


def test_a_truncated_file_is_refused(saved: tuple[PreTrainedModel, Path]) -> None:
    file = saved[1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"the directory is not a causal language model .*incomplete metadata"):
        load_causal_lm(saved[1])


def test_weights_that_are_not_all_there_are_refused_instead_of_filled_in(saved: tuple[PreTrainedModel, Path]) -> None:
    file = saved[1] / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"its weights lack 1 of the model's tensors .model.layers.1.mlp.up_proj"):
        load_causal_lm(saved[1])


def test_weights_of_another_shape_are_refused(saved: tuple[PreTrainedModel, Path]) -> None:
    file = saved[1] / "model.safetensors"
    tensors = load_file(file) | {"model.norm.weight": torch.zeros(3)}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="the directory is not a causal language model"):
        load_causal_lm(saved[1])
