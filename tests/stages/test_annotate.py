from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import yaml

from mixdpo.config import parse_params
from mixdpo.config.models import RewardTraining
from mixdpo.data.schema import CANDIDATES, read_table, scores_schema, text_id, write_table
from mixdpo.errors import DataError, ModelError
from mixdpo.layout import Layout
from mixdpo.rewards import annotation
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.model import RewardModel
from mixdpo.rewards.tokenizer import train_phrase_tokenizer
from mixdpo.stages import annotate as stage
from mixdpo.stages.annotate import run

ROOT = Path(__file__).parents[2]
DIMENSIONS = ("sentiment", "grammar", "informativeness")


def params(source=None):
    values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text())
    values["compute"]["device"] = "cpu"
    if source:
        values["preferences"]["source"] = source
    return parse_params(values)


def rows(count=12):
    return [
        {
            "candidate_id": f"c{place}",
            "prompt_id": text_id(f"The film {place // 3}"),
            "prompt": f"The film {place // 3}",
            "completion": f" had {place} scenes.",
            "finished": True,
            "domain": "movie",
            "split": "train",
        }
        for place in range(count)
    ]


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    write_table(layout.candidates, rows(), CANDIDATES)
    shape = params().rewards.training.model_dump() | {"width": 16, "max_tokens": 32, "vocabulary": 300}
    tokenizer = train_phrase_tokenizer([row["prompt"] for row in rows()], 300, 32)
    for seed, dimension in enumerate(DIMENSIONS):
        classifier = new_classifier(RewardTraining(**shape), tokenizer, dimension, seed)
        RewardModel(classifier, tokenizer, 1, 1.0).save(layout.reward_model(dimension, "annotator"), {})
    return layout


def test_scores_prompt_and_completion_together(layout):
    assert run(params(), layout) == [layout.annotated_scores]
    table = read_table(layout.annotated_scores, scores_schema(DIMENSIONS))
    assert table.schema.equals(scores_schema(DIMENSIONS))
    assert table.select(CANDIDATES.names).to_pylist() == rows()
    for dimension in DIMENSIONS:
        model = RewardModel.load(layout.reward_model(dimension, "annotator"))
        expected = model.score([row["prompt"] + row["completion"] for row in rows()], 256)
        assert np.abs(table[dimension].to_numpy() - expected).max() < 1e-6
    assert not list((layout.root / ".mixdpo" / "work").iterdir())


def test_an_interrupted_run_goes_on_where_it_stopped(layout, monkeypatch):
    run(params(), layout)
    whole = layout.annotated_scores.read_bytes()
    monkeypatch.setattr(stage, "SHARD", 5)
    run(params(), layout)
    in_shards = read_table(layout.annotated_scores)
    before = layout.annotated_scores.read_bytes()
    score, read = annotation.score_texts, []

    def switched_off(models, texts, batch_tokens):
        if len(read) == 10:
            raise KeyboardInterrupt
        read.extend(texts)
        return score(models, texts, batch_tokens)

    monkeypatch.setattr(annotation, "score_texts", switched_off)
    with pytest.raises(KeyboardInterrupt):
        run(params(), layout)
    assert layout.annotated_scores.read_bytes() == before
    read.append("switched on again")
    run(params(), layout)
    texts = [row["prompt"] + row["completion"] for row in rows()]
    assert read == [*texts[:10], "switched on again", *texts[10:]]
    assert layout.annotated_scores.read_bytes() == before
    monkeypatch.undo()
    run(params(), layout)
    assert layout.annotated_scores.read_bytes() == whole
    for dimension in DIMENSIONS:
        difference = read_table(layout.annotated_scores)[dimension].to_numpy() - in_shards[dimension].to_numpy()
        assert np.abs(difference).max() < 1e-6


def test_ready_preferences_need_no_scores(layout, caplog):
    columns = dict.fromkeys(("style", "domain", "split")) | {"metadata": []}
    columns |= {"prompt": "q", "chosen": "a", "rejected": "b", "annotator": "who"}
    with caplog.at_level(logging.WARNING):
        run(params({"kind": "files", "paths": ["*.jsonl"], "columns": columns, "limit": None}), layout)
    assert read_table(layout.annotated_scores, scores_schema(DIMENSIONS)).num_rows == 0
    assert "preferences.source names ready preferences, so no candidate is scored" in caplog.text


def test_nothing_to_annotate(layout):
    write_table(layout.candidates, [], CANDIDATES)
    with pytest.raises(DataError, match=r"candidates.parquet has no rows; run `mixdpo candidates` again"):
        run(params(), layout)


def test_a_missing_model_leaves_the_earlier_scores(layout):
    run(params(), layout)
    before = layout.annotated_scores.read_bytes()
    (layout.reward_model("grammar", "annotator") / "reward.json").unlink()
    with pytest.raises(ModelError, match=r"grammar/annotator holds no reward model .* run `mixdpo rewards`"):
        run(params(), layout)
    assert layout.annotated_scores.read_bytes() == before
