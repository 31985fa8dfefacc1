from __future__ import annotations

import json

import pyarrow as pa
import pytest

from mixdpo.config.data import PreferenceFiles, Splits
from mixdpo.data.ready import read_preferences
from mixdpo.data.schema import PREFERENCES, split_of, text_id, write_table
from mixdpo.errors import DataError

COLUMNS = {"prompt": "q", "chosen": "good", "rejected": "bad"} | dict.fromkeys(
    ("annotator", "style", "domain", "split")
)
SPLITS = Splits(validation=0.1, test=0.2)


@pytest.fixture
def read(tmp_path):
    def read(rows, limit=None, **columns):
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        named = COLUMNS | {"metadata": []} | columns
        source = PreferenceFiles(kind="files", paths=["*.jsonl"], columns=named, limit=limit)
        return read_preferences(source, tmp_path, SPLITS)

    return read


def pair(number=0, **more):
    return {"q": f"prompt {number}", "good": "yes", "bad": "no"} | more


def test_rows_fit_the_schema(read, tmp_path):
    rows = read(
        [pair(who=7, taste="dry", kind="film", part="test", votes=3)],
        annotator="who",
        style="taste",
        domain="kind",
        split="part",
        metadata=["votes"],
    )
    write_table(tmp_path / "pairs.parquet", rows, PREFERENCES)
    assert pa.Table.from_pylist(rows, schema=PREFERENCES).num_rows == 1
    (row,) = rows
    assert row["prompt_id"] == text_id("prompt 0")
    assert (row["annotator"], row["style"], row["domain"], row["split"]) == ("7", "dry", "film", "test")
    assert row["metadata"] == '{"votes":3}'
    assert row["chosen_finished"] is row["rejected_finished"] is True


def test_split_follows_the_prompt(read):
    for row in read([pair(number) for number in range(50)] * 2):
        assert row["split"] == split_of(row["prompt_id"], 0.1, 0.2)


def test_without_annotators_each_pair_is_its_own_and_ids_are_unique(read):
    rows = read([pair(1), pair(1), pair(2)])
    assert len({row["annotator"] for row in rows}) == len({row["pair_id"] for row in rows}) == 3
    # what others say again stays another pair, and no id depends on where its row stands
    assert {row["pair_id"] for row in read([pair(2), pair(1), pair(1)])} == {row["pair_id"] for row in rows}


def test_the_limit_keeps_annotators_whole(read):
    rows = [pair(number, who=number % 20) for number in range(100)]
    kept = read(rows, limit=23, annotator="who")
    counts = sorted([row["annotator"] for row in kept].count(name) for name in {row["annotator"] for row in kept})
    assert counts == [3, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (pair(good=""), {}, "row 1 of pairs.jsonl: column good is empty, expected text; fill it in or remove the row"),
        (pair(q=3), {}, "row 1 of pairs.jsonl: column q holds 3 (int), expected text; "),
        (pair(who=None), {"annotator": "who"}, "row 1 of pairs.jsonl: column who is empty, expected a name; "),
        (pair(part="dev"), {"split": "part"}, "column part holds 'dev', expected one of train, validation, test; "),
        (pair(), {"annotator": "who"}, "has no column who; it has q, good, bad; correct `columns` in params.yaml"),
    ],
)
def test_faults_name_row_column_and_remedy(read, row, columns, message):
    with pytest.raises(DataError) as error:
        read([row], **columns)
    assert message in str(error.value)


def test_no_rows(read):
    with pytest.raises(DataError) as error:
        read([])
    assert str(error.value) == "*.jsonl has no rows; name files with preferences"
