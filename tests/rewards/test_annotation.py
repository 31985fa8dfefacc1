from __future__ import annotations

import numpy as np
import pytest

from mixdpo.rewards import annotation
from mixdpo.rewards.annotation import score_in_shards
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.model import RewardModel
from mixdpo.rewards.tokenizer import train_phrase_tokenizer

TEXTS = [f"text number {place} of many" for place in range(35)]


@pytest.fixture
def model(settings):
    tokenizer = train_phrase_tokenizer(TEXTS, 300, 64)
    return RewardModel(new_classifier(settings, tokenizer, "grammar", 0), tokenizer, 1, 1.0)


def test_an_interrupted_run_goes_on_where_it_stopped(model, tmp_path, monkeypatch):
    monkeypatch.setattr(annotation, "SHARD", 10)
    score, read = model.score, []

    def switched_off(texts, *arguments, **named):
        if len(read) == 20:
            raise KeyboardInterrupt
        read.extend(texts)
        return score(texts, *arguments, **named)

    monkeypatch.setattr(model, "score", switched_off)
    with pytest.raises(KeyboardInterrupt):
        score_in_shards(model, TEXTS, 256, tmp_path, "x")
    read.append("switched on again")
    scores = score_in_shards(model, TEXTS, 256, tmp_path, "x")
    assert read == [*TEXTS[:20], "switched on again", *TEXTS[20:]]
    assert np.abs(scores - score(TEXTS, 256)).max() < 1e-6


def test_nothing_to_score(model, tmp_path):
    assert score_in_shards(model, [], 256, tmp_path, "x").shape == (0,)
