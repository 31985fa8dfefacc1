from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mixdpo.config.models import Device
from mixdpo.errors import DataError, ModelError
from mixdpo.rewards.annotation import TEXTS, Annotation, annotate
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.encoding import Encoder
from mixdpo.rewards.model import RewardModel
from mixdpo.rewards.tokenizer import train_phrase_tokenizer

ROWS = [{"prompt": f"text {place % 7}", "completion": f" is number {place} of many"} for place in range(20)]
SHARD = pa.Table.from_pylist(ROWS + ROWS[:3], schema=TEXTS)
TOGETHER = [row["prompt"] + row["completion"] for row in SHARD.to_pylist()]


@pytest.fixture(scope="module")
def directories(settings, tmp_path_factory):
    """Three models, of which the first two have one tokenizer."""
    made = {}
    for seed, name in enumerate(("grammar", "sentiment", "other")):
        tokenizer = train_phrase_tokenizer(TOGETHER if seed < 2 else ["something else"], 300, 64)
        made[name] = tmp_path_factory.mktemp(name)
        RewardModel(new_classifier(settings, tokenizer, name, seed), tokenizer, 1, 1.0).save(made[name], {})
    return made


def task(directories):
    return Annotation(tuple(directories.items()), 256, Device(device="cpu", dtype="float32", threads=0))


def test_a_shard_gets_a_column_a_model_in_the_order_of_its_rows(directories):
    scores = task(directories).load()(SHARD)
    assert scores.schema == pa.schema([(name, pa.float64()) for name in directories])
    for name, directory in directories.items():
        alone = [RewardModel.load(directory).score([text], 256)[0] for text in TOGETHER]
        assert np.abs(scores[name].to_numpy() - alone).max() < 1e-6
        assert np.ptp(alone) > 1e-3, "scores are so alike that this test shows nothing"


def test_texts_are_cut_once_for_tokenizers_that_agree_and_equal_texts_read_once(directories, monkeypatch):
    models = {name: RewardModel.load(directory) for name, directory in directories.items()}
    encode, cut, read = Encoder.__call__, [], []

    def noted(encoder, texts):
        cut.append((encoder, list(texts)))
        return encode(encoder, texts)

    monkeypatch.setattr(Encoder, "__call__", noted)
    for model in models.values():
        model.model.register_forward_pre_hook(
            lambda _, __, named: read.append(len(named["input_ids"])), with_kwargs=True
        )
    annotate(models, 256, SHARD)
    assert cut == [(models[name].encoder, TOGETHER[:20]) for name in ("grammar", "other")]
    assert sum(read) == 3 * 20


def test_rows_that_are_no_texts_are_refused(directories):
    score = task(directories).load()
    with pytest.raises(DataError, match=r"text 23 is None \(NoneType\), expected a string; drop this row"):
        score(pa.concat_tables([SHARD, pa.Table.from_pylist([{"prompt": "x", "completion": None}], schema=TEXTS)]))
    with pytest.raises(DataError, match="column completion is int64, expected texts"):
        score(pa.table({"prompt": ["x"], "completion": [1]}))


def test_an_answer_that_is_no_finite_number_names_model_and_text(directories, settings, tmp_path):
    tokenizer = train_phrase_tokenizer(TOGETHER, 300, 64)
    broken = new_classifier(settings, tokenizer, "broken", 0)
    broken.get_input_embeddings().weight.data[tokenizer(TOGETHER[4])["input_ids"][-2]] = float("nan")
    RewardModel(broken, tokenizer, 1, 1.0).save(tmp_path / "broken", {})
    with pytest.raises(
        ModelError, match=r"broken answers \[nan, nan\] to the text 'text .* finite logits; use another"
    ):
        task(directories | {"broken": tmp_path / "broken"}).load()(SHARD)


def test_no_rows_have_no_scores(directories):
    scores = task(directories).load()(SHARD.slice(0, 0))
    assert scores.column_names == list(directories)
    assert scores.num_rows == 0
