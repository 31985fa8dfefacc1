from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from mixdpo.config import parse_params
from mixdpo.data.schema import read_table
from mixdpo.errors import DataError, ModelError
from mixdpo.files import directory_digest, read_json
from mixdpo.layout import Layout
from mixdpo.rewards.model import RewardModel
from mixdpo.stages import prepare, rewards

ROOT = Path(__file__).parents[2]
TINY = {"vocabulary": 500, "width": 16, "epochs": 1, "batch": 32, "max_tokens": 48}


def params(**dimensions):
    """The demo's, made tiny; each keyword changes one dimension (None leaves it out)."""
    values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text())
    values["source"]["reviews"] = 300
    values["compute"]["device"] = "cpu"
    values["rewards"]["training"] |= TINY
    values["rewards"]["dimensions"]["grammar"]["labels"][1]["limit"] = 50
    kept = values["rewards"]["dimensions"]
    for name, changes in dimensions.items():
        kept[name] = None if changes is None else kept[name] | changes
    values["rewards"]["dimensions"] = {name: one for name, one in kept.items() if one is not None}
    values["preferences"]["styles"] = {"only": {"weights": {next(iter(kept)): 1.0}, "share": 1.0, "domains": None}}
    return parse_params(values)


SENTIMENT_ONLY = {"grammar": None, "informativeness": None}


def prepared(root, settings):
    layout = Layout(root)
    prepare.run(settings, layout)
    layout.validated("reviews").parent.mkdir(parents=True)
    shutil.copy(layout.prepared_reviews, layout.validated("reviews"))
    return layout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    layout = prepared(tmp_path_factory.mktemp("finished"), params())
    assert rewards.run(params(), layout) == [layout.rewards, layout.metrics("rewards")]
    return layout


def test_writes_every_model_with_its_card(finished):
    metrics = read_json(finished.metrics("rewards"))
    assert metrics["schema"] == 1
    assert set(metrics["dimensions"]) == {"sentiment", "grammar", "informativeness"}
    for dimension, roles in metrics["dimensions"].items():
        assert set(roles) == {"annotator", "judge", "agreement"}
        for role in ("annotator", "judge"):
            card = read_json(finished.reward_model(dimension, role) / "reward.json")
            assert (card["dimension"], card["role"], card["label"]) == (dimension, role, dimension)
            assert card["quality"]["brier"] == roles[role]["brier"]
            assert card["temperature"] == roles[role]["temperature"]
            assert len(card["training"]["training_data"]) == 64
            assert 0 <= RewardModel.load(finished.reward_model(dimension, role)).score(["A text."], 64)[0] <= 1
    assert not list((finished.root / ".mixdpo" / "work").iterdir())


def test_annotator_and_judge_learn_from_different_data(finished):
    for dimension in ("sentiment", "grammar", "informativeness"):
        cards = [read_json(finished.reward_model(dimension, role) / "reward.json") for role in ("annotator", "judge")]
        for key in ("seed", "training_data"):
            assert cards[0]["training"][key] != cards[1]["training"][key]
        labelled = sum(card["training"]["train_texts"] + card["training"]["validation_texts"] for card in cards)
        if dimension == "informativeness":
            splits = read_table(finished.validated("reviews"))["split"].to_pylist()
            assert labelled == len(splits) - splits.count("test")


def test_two_runs_are_identical(tmp_path):
    settings = params(**SENTIMENT_ONLY)
    first, second = (prepared(tmp_path / name, settings) for name in "ab")
    for layout in (first, second):
        rewards.run(settings, layout)
    assert directory_digest(first.rewards) == directory_digest(second.rewards)
    assert first.metrics("rewards").read_bytes() == second.metrics("rewards").read_bytes()


def test_a_finished_model_is_not_trained_again(tmp_path, monkeypatch):
    settings = params(**SENTIMENT_ONLY)
    layout = prepared(tmp_path, settings)
    trained, train = [], rewards.train_reward_model

    def interrupted(examples, dimension, role, *rest):
        trained.append(role)
        if trained == ["annotator", "judge"]:
            raise KeyboardInterrupt
        return train(examples, dimension, role, *rest)

    monkeypatch.setattr(rewards, "train_reward_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rewards.run(settings, layout)
    assert not layout.rewards.exists()
    rewards.run(settings, layout)
    assert trained == ["annotator", "judge", "judge"]
    assert (layout.reward_model("sentiment", "judge") / "reward.json").is_file()


def test_pretrained_models_are_kept_with_the_data(finished, tmp_path):
    directory = finished.reward_model("sentiment", "judge")
    named = {"kind": "pretrained", "model": str(directory), "revision": None, "label": "sentiment", "temperature": 2.0}
    settings = params(sentiment={"annotator": named, "judge": named, "labels": []}, grammar=None, informativeness=None)
    layout = prepared(tmp_path, settings)
    rewards.run(settings, layout)
    card = read_json(layout.reward_model("sentiment", "annotator") / "reward.json")
    assert (card["base"], card["temperature"], card["label"]) == (str(directory), 2.0, "sentiment")
    assert card["quality"]["test_texts"] == 0
    assert card["quality"]["auc"] is None
    assert "training" not in card


def test_a_faulty_model_leaves_the_earlier_output(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "copy")
    layout = Layout(tmp_path / "copy")
    before = directory_digest(layout.rewards)
    named = {"kind": "pretrained", "model": "nowhere", "revision": None, "label": "1", "temperature": 1.0}
    with pytest.raises(ModelError, match="'nowhere' is no directory here"):
        rewards.run(params(sentiment={"judge": named}, grammar=None, informativeness=None), layout)
    assert directory_digest(layout.rewards) == before


def test_a_missing_table_and_a_missing_file_are_named(tmp_path, finished):
    with pytest.raises(DataError, match=r"validated/reviews.parquet does not exist; run the stage that writes it"):
        rewards.run(params(), Layout(tmp_path))
    files = {"kind": "files", "paths": ["no.parquet"], "text": "t", "target": "y", "range": [0, 1], "limit": None}
    with pytest.raises(DataError, match=r"no file matches no.parquet below"):
        rewards.run(params(sentiment={"labels": [files]}), finished)
