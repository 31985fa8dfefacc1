"""The Hub's loader on a local directory of the same layout, and what is said when the Hub is out of reach."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo.config.data import HubSource
from mixdpo.data.sources import read_reviews
from mixdpo.errors import DataError, TransientError

datasets = pytest.importorskip("datasets")

CARD = """---
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
---
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def inputs(tmp_path):
    repository = tmp_path / "inputs" / "someone" / "films"
    (repository / "plain_text").mkdir(parents=True)
    (repository / "README.md").write_text(CARD)
    table = pa.table({"text": ["Good.", "Bad.", "Unrated."], "label": [1, 0, None], "extra": [1.5, 2.5, 3.5]})
    pq.write_table(table, repository / "plain_text" / "train-00000-of-00001.parquet")
    return tmp_path / "inputs"


def source(**changes):
    columns = {"text": "text", "label": "label", "stars": None, "user": None, "metadata": ["extra"]}
    part = {"domain": "movie", "dataset": "someone/films", "config": "plain_text", "split": "train"}
    part |= {"revision": "main", "columns": columns, "labels": None, "limit": None}
    return HubSource(kind="hub", sets=[part | changes])


def test_a_directory_below_inputs_stands_in_for_the_hub(inputs):
    reviews = list(read_reviews(source(), inputs))
    assert [(review["text"], review["label"], review["metadata"]) for review in reviews] == [
        ("Good.", 1, {"extra": 1.5}),
        ("Bad.", 0, {"extra": 2.5}),
        ("Unrated.", None, {"extra": 3.5}),
    ]


@pytest.mark.parametrize("fault", [{"split": "test"}, {"config": "other"}])
def test_unknown_split_or_configuration(inputs, fault):
    with pytest.raises(DataError, match=r"someone/films: configuration .* correct `config` or `split`"):
        list(read_reviews(source(**fault), inputs))


def test_unknown_column(inputs):
    columns = {"text": "review", "label": None, "stars": None, "user": None, "metadata": []}
    with pytest.raises(DataError) as error:
        list(read_reviews(source(columns=columns), inputs))
    assert str(error.value) == (
        "someone/films (train) has no column review; it has text, label, extra; correct `columns` in params.yaml"
    )


def test_out_of_reach_names_data_set_and_remedy(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(TransientError) as error:
        list(read_reviews(source(revision="abc"), tmp_path))
    message = str(error.value)
    assert message.startswith(
        "data set someone/films at revision abc is no directory here, and the Hub did not answer ("
    )
    assert message.endswith("run again, or give a local directory of the same layout")
