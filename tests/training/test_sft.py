from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixdpo.config.models import SFT
from mixdpo.errors import ConfigError, TrainingError
from mixdpo.training import sft
from mixdpo.training.sft import fine_tune

TEXTS = ["the wall is red", "a wall of blue", "the sea is green", "a sea of blue and green"] * 8
BASE = {
    "kind": "config",
    "architecture": "gpt2",
    "vocabulary": 300,
    "layers": 1,
    "width": 16,
    "heads": 2,
    "context": 32,
}
SETTINGS = {"base": BASE, "epochs": 3, "batch": 8, "max_tokens": 24, "learning_rate": 1e-2}


@pytest.fixture
def tune(new_model: Callable[[], Any], tokenizer: Any) -> Callable[..., Any]:
    def run(texts: list[str] = TEXTS, checkpoint: Path | None = None, **changes: Any) -> Any:
        model = new_model()
        settings = SFT.model_validate(SETTINGS | changes)
        result = fine_tune(
            model, tokenizer, texts, TEXTS[:4], settings, 0, torch.device("cpu"), torch.float32, checkpoint
        )
        return result, model

    return run


def test_it_learns_the_reviews(tune: Callable[..., Any]) -> None:
    before, _ = tune(epochs=0)
    after, _ = tune(epochs=12)
    assert before.steps == 0
    assert before.validation_loss == pytest.approx(math.log(290), rel=0.05)
    assert after.validation_loss < 0.4 * before.validation_loss
    assert after.train_loss < before.train_loss
    assert after.steps == 12 * 4


def test_its_loss_is_that_of_transformers_over_all_tokens(tune: Callable[..., Any], tokenizer: Any) -> None:
    result, model = tune()
    total, tokens = 0.0, 0
    for text in TEXTS[:4]:
        ids = torch.tensor([tokenizer(f"<|endoftext|>{text}<|endoftext|>")["input_ids"]])
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert result.validation_loss == pytest.approx(total / tokens, abs=1e-5)


class Killed(BaseException):
    """What no handler in the program catches."""


def test_a_killed_run_goes_on_to_the_same_model_bit_for_bit(
    tune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "CHECKPOINT_EVERY", 3)
    whole, wanted = tune()
    loss = sft._loss
    calls: list[int] = []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            raise Killed
        return loss(*arguments)

    monkeypatch.setattr(sft, "_loss", dying)
    with pytest.raises(Killed):
        tune(checkpoint=tmp_path / "work")
    calls.clear()
    calls.extend([1] * 8)  # never again
    resumed, model = tune(checkpoint=tmp_path / "work")
    assert len(calls) == 8 + (12 - 6) + 1  # from the checkpoint at step 6, and one batch of validation
    assert resumed == whole
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted.state_dict()[name]), name


def test_every_review_comes_once_an_epoch_beside_others_of_its_length() -> None:
    lengths = [5 + place % 20 for place in range(50)]
    batches = sft._batches(lengths, 8, 2, seed=0)
    for epoch in (batches[:7], batches[7:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(50))
    assert batches[:7] != batches[7:]
    spans = [max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in batches]
    assert max(spans) <= 10


def test_what_cannot_be_trained_on_is_refused(tune: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match="0 training and 4 validation reviews; both splits need some"):
        tune([])
    with pytest.raises(ConfigError, match=r"sft.max_tokens is 40 but the model reads at most 32; lower it in params"):
        tune(max_tokens=40)
    with pytest.raises(TrainingError, match=r"the loss of step \d+ is not finite; lower sft.learning_rate in params"):
        tune(learning_rate=1e30)
