from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mixdpo.config import Params
from mixdpo.config.models import PretrainedPolicy
from mixdpo.data.embedded import generate_reviews
from mixdpo.data.schema import REVIEWS, text_id, write_table
from mixdpo.errors import ConfigError, DataError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.policy.loading import load_causal_lm
from mixdpo.stages import sft
from mixdpo.training import sft as fine_tuning


def prepare(layout: Layout) -> None:
    rows = [
        {"review_id": text_id(review["text"]), "text": review["text"], "domain": "movie", "split": split}
        for review, split in zip(generate_reviews(50, 10, seed=0), ["train"] * 40 + ["validation"] * 10, strict=True)
    ]
    write_table(layout.validated("reviews"), rows, REVIEWS)


@pytest.fixture
def params(toy_params: Params) -> Params:
    settings = toy_params.sft.model_copy(update={"epochs": 2, "batch": 8})
    return toy_params.model_copy(update={"sft": settings})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    prepare(layout)
    return layout


def test_reviews_become_a_causal_language_model(params: Params, layout: Layout) -> None:
    assert sft.run(params, layout) == [layout.sft, layout.metrics("sft")]
    model, tokenizer = load_causal_lm(layout.sft)
    metrics = read_json(layout.metrics("sft"))
    assert metrics["reviews"] == {"train": 40, "validation": 10, "test": 0}
    assert metrics["steps"] == 2 * 5
    assert metrics["vocabulary"] == len(tokenizer) == model.config.vocab_size
    assert metrics["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert metrics["validation_perplexity"] == math.exp(metrics["validation_loss"])
    assert metrics["train_loss"] < math.log(300)
    assert not list((layout.root / ".mixdpo").rglob("*.safetensors"))  # no state is left behind


def test_two_runs_write_the_same_bytes(params: Params, layout: Layout, tmp_path: Path) -> None:
    sft.run(params, layout)
    again = Layout(tmp_path / "again")
    prepare(again)
    sft.run(params, again)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (layout.sft / name).read_bytes() == (again.sft / name).read_bytes()
    assert read_json(layout.metrics("sft")) == read_json(again.metrics("sft"))


class Killed(BaseException):
    """What no handler in the program catches."""


def test_a_killed_stage_resumes_but_not_with_other_values(
    params: Params, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "CHECKPOINT_EVERY", 2)
    steps: list[int] = []
    set_rate = fine_tuning.set_learning_rate

    def dying(optimizer: torch.optim.Optimizer, step: int, total: int, warmup: float) -> None:
        steps.append(step)
        if steps == [0, 1, 2, 3, 4]:
            raise Killed
        set_rate(optimizer, step, total, warmup)

    monkeypatch.setattr(fine_tuning, "set_learning_rate", dying)
    with pytest.raises(Killed):
        sft.run(params, layout)
    assert not layout.sft.exists()

    steps.clear()
    steps.append(-1)
    slower = params.sft.model_copy(update={"learning_rate": 1e-4})
    sft.run(params.model_copy(update={"sft": slower}), layout)
    assert steps[1] == 0

    steps[:] = [-1]
    sft.run(params, layout)
    assert steps[1:] == [4, 5, 6, 7, 8, 9]
    whole = Layout(tmp_path / "whole")
    prepare(whole)
    sft.run(params, whole)
    assert (layout.sft / "model.safetensors").read_bytes() == (whole.sft / "model.safetensors").read_bytes()


def test_a_pretrained_base_keeps_its_tokenizer(params: Params, layout: Layout, tmp_path: Path) -> None:
    sft.run(params, layout)
    base = tmp_path / "base"
    layout.sft.rename(base)
    values = params.sft.model_dump() | {"base": {"kind": "pretrained", "model": str(base), "revision": None}}
    untouched = type(params.sft).model_validate(values | {"epochs": 0})
    sft.run(params.model_copy(update={"sft": untouched}), layout)
    for one, two in zip(load_causal_lm(base)[0].parameters(), load_causal_lm(layout.sft)[0].parameters(), strict=True):
        assert torch.equal(one, two)
    assert (base / "tokenizer.json").read_bytes() == (layout.sft / "tokenizer.json").read_bytes()


def test_a_base_is_looked_for_below_the_inputs_first(params: Params, layout: Layout) -> None:
    sft.run(params, layout)
    (layout.root / params.inputs).mkdir(parents=True, exist_ok=True)
    layout.sft.rename(layout.root / params.inputs / "base")
    base = PretrainedPolicy(kind="pretrained", model="base", revision=None)
    again = params.model_copy(update={"sft": params.sft.model_copy(update={"base": base, "epochs": 0})})
    sft.run(again, layout)
    ours, _ = load_causal_lm(layout.sft)
    theirs, _ = load_causal_lm(layout.root / params.inputs / "base")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_what_is_missing_or_too_long_is_said(params: Params, layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reviews.parquet does not exist; run the stage that writes it first"):
        sft.run(params, Layout(tmp_path / "empty"))
    longer = params.sft.model_copy(update={"max_tokens": 1000})
    with pytest.raises(ConfigError, match=r"sft.max_tokens is 1000 but the model reads at most 128; lower it in"):
        sft.run(params.model_copy(update={"sft": longer}), layout)
