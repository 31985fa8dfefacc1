from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from mixdpo.compute import Compute
from mixdpo.config.models import PretrainedReward
from mixdpo.errors import ModelError, TransientError
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.model import RewardModel
from mixdpo.rewards.tokenizer import train_phrase_tokenizer

TEXTS = [
    "This film was great.",
    "A book of many long chapters about the sea, the war and the people of a small town.",
    "No.",
    "",
    "I liked it, and then I did not like it, and then I did again, which says something.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_phrase_tokenizer(TEXTS, 400, 32)


@pytest.fixture
def model(tokenizer, settings):
    small = settings.model_copy(update={"layers": 2, "max_tokens": 32})
    return RewardModel(new_classifier(small, tokenizer, "grammar", 0), tokenizer, 1, 1.5)


def save(directory, tokenizer, labels, kind=BertForSequenceClassification, config=BertConfig):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = kind(
            config(
                vocab_size=len(tokenizer),
                max_position_embeddings=40,
                pad_token_id=tokenizer.pad_token_id,
                id2label=dict(enumerate(labels)),
                label2id={name: place for place, name in enumerate(labels)},
                **shape,
            )
        )
    classifier.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return classifier.eval()


def source(model, label="pos", revision=None, temperature=1.0):
    return PretrainedReward(
        kind="pretrained", model=str(model), revision=revision, label=label, temperature=temperature
    )


def test_scores_do_not_depend_on_company(model):
    together = model.score(TEXTS, 4096)
    assert together.dtype == np.float64
    assert together.shape == (len(TEXTS),)
    assert np.ptp(together) > 1e-3, "scores are so alike that this test shows nothing"
    alone = np.concatenate([model.score([text], 4096) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(together - model.score(TEXTS, 20)).max() < 1e-6
    assert np.abs(together[::-1] - model.score(TEXTS[::-1], 64)).max() < 1e-6


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_large_models_score_the_same_with_their_weights_laid_out(model, precision, monkeypatch):
    model.compute = Compute(torch.device("cpu"), precision)
    expected = model.score(TEXTS, 4096)
    assert not model.large
    monkeypatch.setattr("mixdpo.rewards.model.LARGE", 100)
    monkeypatch.setattr("mixdpo.rewards.model.PAYS_AFTER", 10)
    del model.large
    assert model.large
    assert np.abs(model.score(TEXTS, 4096) - expected).max() < (1e-6 if precision is torch.float32 else 0.02)
    assert not any("forward" in layer.__dict__ for layer in model.model.modules())


def test_equal_texts_are_read_once_and_score_alike(model, monkeypatch):
    rows = []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda **kw: (rows.append(len(kw["input_ids"])), forward(**kw))[1])
    scores = model.score([TEXTS[0], TEXTS[1], TEXTS[0]], 4096)
    assert sum(rows) == 2
    assert scores[0] == scores[2]


def test_no_text_no_score(model):
    assert model.score([], 4096).shape == (0,)


def test_temperature_divides_the_log_odds(model):
    warm = model.score(TEXTS, 4096)
    model.temperature = 3.0
    cool = model.score(TEXTS, 4096)
    odds = [np.log(scores / (1 - scores)) for scores in (warm, cool)]
    assert np.allclose(odds[0], 2 * odds[1])


def test_long_texts_are_cut_and_said_to_be(model, caplog):
    long = "superb " * 200
    with caplog.at_level(logging.WARNING):
        model.score([long, TEXTS[0]], 4096)
    assert "1 of 2 texts are longer than the 32 tokens that the reward model reads" in caplog.text


def test_bfloat16_is_near(model):
    exact = model.score(TEXTS, 4096)
    model.compute = Compute(torch.device("cpu"), torch.bfloat16)
    assert np.abs(model.score(TEXTS, 4096) - exact).max() < 0.02


def test_saved_and_loaded_scores_the_same(model, tmp_path):
    model.save(tmp_path / "m", {"dimension": "grammar"})
    again = RewardModel.load(tmp_path / "m")
    assert np.array_equal(again.score(TEXTS, 4096), model.score(TEXTS, 4096))
    card = json.loads((tmp_path / "m" / "reward.json").read_text())
    assert card == {"dimension": "grammar", "label": "grammar", "temperature": 1.5}
    assert not list((tmp_path / "m").glob("*.bin"))


def test_a_label_is_a_name_or_an_index(tokenizer, tmp_path):
    classifier = save(tmp_path / "m", tokenizer, ["neg", "pos", "meh"])
    named = RewardModel.load(source("m"), inputs=tmp_path).score(TEXTS, 4096)
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        expected = classifier(ids).logits.softmax(dim=1)[0, 1]
    assert named[0] == pytest.approx(float(expected), abs=1e-6)
    assert np.array_equal(named, RewardModel.load(source(tmp_path / "m", "1")).score(TEXTS, 4096))
    parts = [RewardModel.load(source(tmp_path / "m", str(place))).score(TEXTS, 4096) for place in range(3)]
    assert np.allclose(sum(parts), 1.0)


def test_a_single_logit_goes_through_a_sigmoid(tokenizer, tmp_path):
    classifier = save(tmp_path / "m", tokenizer, ["quality"])
    scores = RewardModel.load(source(tmp_path / "m", "quality", temperature=2.0)).score(TEXTS, 4096)
    with torch.no_grad():
        logit = classifier(torch.tensor([tokenizer(TEXTS[0])["input_ids"]])).logits[0, 0]
    assert scores[0] == pytest.approx(float(torch.sigmoid(logit / 2)), abs=1e-6)


def test_positions_that_begin_late_shorten_the_limit(tokenizer, tmp_path):
    tokenizer.model_max_length, before = 10**9, tokenizer.model_max_length
    try:
        save(tmp_path / "m", tokenizer, ["neg", "pos"], RobertaForSequenceClassification, RobertaConfig)
        model = RewardModel.load(source(tmp_path / "m"))
    finally:
        tokenizer.model_max_length = before
    # 40 positions, of which RoBERTa leaves those up to its padding id unused
    assert model.max_tokens == 40 - (tokenizer.pad_token_id + 1)
    assert np.isfinite(model.score(["superb " * 100], 4096)).all()


@pytest.mark.parametrize("label", ["positive", "2", "-1"])
def test_a_wrong_label_lists_the_right_ones(tokenizer, tmp_path, label):
    save(tmp_path / "m", tokenizer, ["neg", "pos"])
    with pytest.raises(ModelError, match=rf"has no label '{label}'; it has neg \(0\), pos \(1\): name one of these"):
        RewardModel.load(source(tmp_path / "m", label))


def test_a_language_model_is_no_classifier(tokenizer, tmp_path):
    shape = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(shape).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    with pytest.raises(
        ModelError, match=r"is no sequence classifier: its weights lack score.weight; name a model that"
    ):
        RewardModel.load(source(tmp_path / "m", "1"))


def test_an_empty_directory_is_refused(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(
        ModelError, match=r"cannot be loaded as a sequence classifier .*expected a directory with config"
    ):
        RewardModel.load(source(tmp_path / "m"))
    with pytest.raises(ModelError, match=r"holds no reward model \(reward.json is missing\); run `mixdpo rewards`"):
        RewardModel.load(tmp_path / "m")


def test_broken_weights_are_refused(tokenizer, tmp_path):
    save(tmp_path / "m", tokenizer, ["neg", "pos"])
    (tmp_path / "m" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be loaded as a sequence classifier"):
        RewardModel.load(source(tmp_path / "m"))


def test_a_hub_id_needs_a_revision(tmp_path):
    with pytest.raises(ModelError, match=r"'someone/model' is no directory here, and a Hub id needs a `revision`"):
        RewardModel.load(source("someone/model"), inputs=tmp_path)


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        TransientError,
        match=r"^reward model 'someone/model' \(revision abc\) is no directory here, and the Hub did not answer ",
    ):
        RewardModel.load(source("someone/model", revision="abc"), inputs=tmp_path)
