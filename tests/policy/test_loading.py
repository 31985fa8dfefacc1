from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import ModelError
from mixdpo.policy.loading import experts_of, load_causal_lm, reference_models
from mixdpo.policy.scoring import score_rows
from mixdpo.policy.tokens import encode_rows
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


@torch.no_grad()
def test_references_of_their_own_are_frozen_and_experts_of_them_start_equal_and_learn(
    saved: tuple[PreTrainedModel, Path],
    make_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    other = tmp_path_factory.mktemp("other")
    make_model("neox", seed=1).save_pretrained(other)
    tokenizer.save_pretrained(other)
    references = reference_models([saved[1], other], tokenizer)
    rows = encode_rows(tokenizer, ["the cat", "a"], [" sat", " mat"])
    assert not any(part.requires_grad for part in references.parameters())
    experts = experts_of(references)
    assert all(part.requires_grad for part in experts.parameters())
    before = score_rows(references, rows)
    assert (before[:, 0] - before[:, 1]).abs().min() > 1e-3
    torch.testing.assert_close(score_rows(experts, rows), before)
    for part in experts.parameters():
        part.mul_(1.1)
    assert torch.equal(score_rows(references, rows), before)


def test_references_with_other_tokens_are_refused(
    saved: tuple[PreTrainedModel, Path], tokenizer: PreTrainedTokenizerBase
) -> None:
    words = ["many other words make a larger vocabulary than the mat"] * 3
    more, as_many = train_bpe(words, 300, 64), train_bpe(words, len(tokenizer), 64)
    for given, difference in [(more, f"{len(tokenizer)} tokens, not {len(more)}"), (as_many, "other tokens")]:
        with pytest.raises(ModelError) as error:
            reference_models([saved[1], saved[1]], given)
        assert str(error.value) == (
            f"reference {saved[1]}: its tokenizer has {difference}; a mixture compares and writes the same tokens: "
            f"name references with the tokenizer of the SFT policy"
        )


def test_references_with_another_vocabulary_size_are_refused(
    saved: tuple[PreTrainedModel, Path], tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> None:
    padded, directory = saved[0], tmp_path_factory.mktemp("padded")
    size = padded.config.vocab_size
    padded.resize_token_embeddings(size + 4, mean_resizing=False)
    padded.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    with pytest.raises(ModelError) as error:
        reference_models([saved[1], directory], tokenizer)
    assert str(error.value) == (
        f"expert 1 knows {size + 4} tokens but expert 0 knows {size}; a mixture needs one vocabulary: name models of "
        f"the same tokenizer and vocabulary size"
    )
