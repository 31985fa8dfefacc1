from __future__ import annotations

import json

import pytest

from mixdpo.config.data import EmbeddedSource, FilesSource
from mixdpo.data import sources
from mixdpo.data.embedded import generate_reviews
from mixdpo.errors import DataError

COLUMNS = {"text": "text", "label": None, "stars": None, "user": None, "metadata": []}


def read_reviews(source, inputs):
    return list(sources.read_reviews(source, inputs))


def source(columns=None, labels=None, limit=None, paths=("rows.jsonl",), **more):
    part = {"domain": "book", "paths": paths, "columns": COLUMNS | (columns or {}), "labels": labels, "limit": limit}
    return FilesSource(kind="files", sets=[part | more])


def write(directory, rows):
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_columns_are_mapped_and_the_rest_is_kept_as_metadata(tmp_path):
    write(tmp_path, [{"text": "Fine.", "stars": 4, "who": 17, "votes": [1, 2], "other": "x"}])
    columns = {"stars": "stars", "user": "who", "metadata": ["votes"]}
    known = {"stars": 4.0, "label": 1, "user_id": "17", "metadata": {"votes": [1, 2]}, "batch": 0}
    assert read_reviews(source(columns), tmp_path) == [{"text": "Fine.", "domain": "book", **known}]


@pytest.mark.parametrize(("stars", "label"), [(5, 1), (4, 1), (3.5, None), (3, None), (2, 0), (1, 0), (None, None)])
def test_label_follows_from_stars(tmp_path, stars, label):
    write(tmp_path, [{"text": "a", "stars": stars}])
    assert read_reviews(source({"stars": "stars"}), tmp_path)[0]["label"] == label


def test_labels_are_translated(tmp_path):
    write(tmp_path, [{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}, {"text": "c", "label": None}])
    reviews = read_reviews(source({"label": "label"}, labels={"pos": 1, "neg": 0}), tmp_path)
    assert [review["label"] for review in reviews] == [1, 0, None]


@pytest.mark.parametrize(("value", "labels"), [(2, None), (-1, None), ("pos", None), ("mixed", {"pos": 1, "neg": 0})])
def test_label_outside_its_set_names_row_and_value(tmp_path, value, labels):
    good = 1 if labels is None else "pos"
    write(tmp_path, [{"text": "a", "label": good}, {"text": "b", "label": value}])
    known = "0, 1" if labels is None else "pos, neg"
    with pytest.raises(DataError) as error:
        read_reviews(source({"label": "label"}, labels=labels), tmp_path)
    assert str(error.value) == (
        f"row 2 of rows.jsonl: column label holds the label {value!r}, expected one of {known}; "
        "correct the row, or translate the value under `labels` in params.yaml"
    )


def test_a_set_may_take_some_rows_only(tmp_path):
    write(tmp_path, [{"text": part, "part": part} for part in ("train", "dev", "test", "train")])
    rows = read_reviews(source(only={"part": ["train", "dev"]}), tmp_path)
    assert [row["text"] for row in rows] == ["train", "dev", "train"]
    with pytest.raises(DataError, match="has no rows that `only` admits"):
        read_reviews(source(only={"part": ["val"]}), tmp_path)


@pytest.mark.parametrize("stars", [0, 5.5, "five", True, float("nan")])
def test_stars_out_of_range_name_row_and_value(tmp_path, stars):
    write(tmp_path, [{"text": "a", "stars": stars}])
    with pytest.raises(DataError, match=r"row 1 of rows.jsonl: column stars holds .*expected stars from 1 to 5"):
        read_reviews(source({"stars": "stars"}), tmp_path)


def test_other_things_than_text_are_refused_and_null_is_empty(tmp_path):
    write(tmp_path, [{"text": None}, {"text": 5}])
    with pytest.raises(DataError, match=r"row 2 of rows.jsonl: column text holds 5 \(int\), expected text"):
        read_reviews(source(), tmp_path)
    write(tmp_path, [{"text": None}, {"text": "a"}])
    assert [review["text"] for review in read_reviews(source(), tmp_path)] == ["", "a"]


def test_an_empty_set_is_refused(tmp_path):
    write(tmp_path, [])
    with pytest.raises(DataError) as error:
        read_reviews(source(), tmp_path)
    assert str(error.value) == "rows.jsonl has no rows; name a set with reviews, or remove it from source.sets"


def test_the_limit_is_no_prefix_and_stays_when_the_set_grows(tmp_path):
    rows = [{"text": f"review {number}"} for number in range(400)]

    def chosen(count, limit):
        write(tmp_path, rows[:count])
        return {review["text"] for review in read_reviews(source(limit=limit), tmp_path)}

    few = chosen(400, 50)
    assert len(few) == 50
    assert few != {row["text"] for row in rows[:50]}
    assert few < chosen(400, 100)
    assert {text for text in chosen(400, 200) if text in chosen(200, 200)} <= chosen(200, 200)
    assert few & chosen(200, 400) <= chosen(200, 50)  # who is among the 50 lowest of all is so among fewer
    assert chosen(400, 1000) == {row["text"] for row in rows}


def test_the_embedded_source_is_the_generator(tmp_path):
    embedded = EmbeddedSource(kind="embedded", reviews=20, users=3, seed=5)
    assert read_reviews(embedded, tmp_path) == [{**row, "batch": 0} for row in generate_reviews(20, 3, seed=5)]
