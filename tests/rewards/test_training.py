from __future__ import annotations

import numpy as np
import pytest
import torch

from mixdpo.errors import DataError, TrainingError
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.labels import Example
from mixdpo.rewards.model import CPU
from mixdpo.rewards.quality import quality
from mixdpo.rewards.tokenizer import train_phrase_tokenizer
from mixdpo.rewards.training import fit_temperature, model_seed, select, snippet, train_reward_model, variation


@pytest.fixture(scope="module")
def trained(examples, settings):
    return train_reward_model(examples, "sentiment", "annotator", settings, 0, CPU)


def test_learns_what_the_labels_say(trained, examples):
    test = [example for example in examples if example.split == "test"]
    scores = trained.model.score([example.text for example in test], 4096)
    assert quality(scores, np.array([example.target for example in test]))["auc"] > 0.95


def test_the_report_counts_its_own_role_only(trained, examples):
    assert trained.report["train_texts"] == len(select(examples, "annotator", "train"))
    assert trained.report["validation_texts"] == len(select(examples, "annotator", "validation"))


def test_same_seed_same_model_and_another_role_another_one(trained, examples, settings):
    texts = [example.text for example in examples[:20]]
    again = train_reward_model(examples, "sentiment", "annotator", settings, 0, CPU)
    assert again.report == trained.report
    assert np.array_equal(again.model.score(texts, 512), trained.model.score(texts, 512))
    assert model_seed(0, "sentiment", "judge") != trained.report["seed"] == model_seed(0, "sentiment", "annotator")


def test_training_leaves_the_global_generator_alone(examples, settings):
    state = torch.get_rng_state()
    train_reward_model(examples, "sentiment", "judge", settings.model_copy(update={"epochs": 1}), 0, CPU)
    assert torch.equal(state, torch.get_rng_state())


def test_temperature_recovers_the_scale_of_the_logits():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    targets = torch.bernoulli(logits.softmax(dim=1)[:, 1], generator=generator)
    assert fit_temperature(logits, targets) == pytest.approx(1.0, abs=0.08)
    assert fit_temperature(3 * logits, targets) == pytest.approx(3.0, abs=0.25)


def test_snippets_have_the_length_asked_for_and_sentences_stay_whole():
    words = [f"w{place}" for place in range(30)]
    long = Example(" ".join(words), 1.0, "train", "judge", False)
    generator = np.random.default_rng(0)
    pieces = [snippet(long, (4, 8), generator).split() for _ in range(200)]
    assert {len(piece) for piece in pieces} == {4, 5, 6, 7, 8}
    assert all(" ".join(piece) in long.text for piece in pieces)
    assert len({piece[0] for piece in pieces}) > 15
    sentence = long._replace(text="one two three four five six seven", whole=True)
    assert {snippet(sentence, (4, 8), generator) for _ in range(50)} == {sentence.text}


def test_damage_is_done_anew_to_the_intact_sentence():
    sentence = "The end of the film was not what the writer had in mind."
    damaged = Example("The of end", 0.0, "train", "judge", whole=True, intact=sentence)
    seen = {variation(damaged, (4, 8), np.random.default_rng(seed)) for seed in range(50)}
    assert len(seen) > 20
    assert sentence not in seen


def test_heads_begin_by_looking_at_their_neighbour(settings):
    tokenizer = train_phrase_tokenizer(["the film was great"], 300, 64)
    model = new_classifier(settings, tokenizer, "grammar", 0)
    model.set_attn_implementation("eager")
    ids = torch.randint(2, len(tokenizer), (64, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (attention,) = model(ids, output_attentions=True).attentions
    mean = attention.mean(dim=0)
    for place in range(2, 10):
        assert mean[0, place].argmax() == place - 1
        assert mean[1, place].argmax() == place + 1


def test_tokens_span_words_but_not_punctuation():
    tokenizer = train_phrase_tokenizer(["one of the best, one of the worst"] * 5, 400, 64)
    tokens = tokenizer.tokenize("one of the best, one of")
    assert any("one" in token and "the" in token for token in tokens)
    assert all(token == "," or "," not in token for token in tokens)
    assert (
        tokenizer.decode(tokenizer("naïve – 電影 of the", add_special_tokens=False)["input_ids"])
        == "naïve – 電影 of the"
    )
    assert len(tokenizer("")["input_ids"]) == 1


def test_too_little_data_is_named(examples, settings):
    train_only = [example for example in examples if example.split == "train"]
    with pytest.raises(DataError, match="sentiment, judge: the validation split has 0 labelled texts"):
        train_reward_model(train_only, "sentiment", "judge", settings, 0, CPU)


def test_divergence_stops_with_the_rate(examples, settings):
    wild = settings.model_copy(update={"learning_rate": 1e30, "epochs": 1})
    with pytest.raises(TrainingError, match=r"loss is nan after epoch 1; lower rewards.training.learning_rate"):
        train_reward_model(examples, "sentiment", "judge", wild, 0, CPU)
