from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pydantic import ValidationError

from mixdpo.config.data import PreferenceColumns, PreferenceFiles, Splits
from mixdpo.data.ready import read_preferences
from mixdpo.data.schema import PREFERENCES, split_of, text_id, write_table
from mixdpo.errors import DataError

COLUMNS = {"prompt": "q", "chosen": "good", "rejected": "bad"} | dict.fromkeys(
    ("annotator", "style", "domain", "split")
)
SPLITS = Splits(validation=0.1, test=0.2)


@pytest.fixture
def ready(tmp_path):
    def ready(rows, limit=None, per_annotator=None, min_pairs=None, **columns):
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        named = COLUMNS | {"metadata": []} | columns
        source = PreferenceFiles(
            kind="files",
            paths=["*.jsonl"],
            columns=named,
            limit=limit,
            per_annotator=per_annotator,
            min_pairs=min_pairs,
        )
        return read_preferences(source, tmp_path, SPLITS)

    return ready


@pytest.fixture
def read(ready):
    return lambda rows, **named: ready(rows, **named).rows


COMPARED = {"first": "left", "second": "right", "choice": "winner", "values": {"a": "first", "b": "second", "=": "tie"}}


def comparison(winner="a", number=0, **more):
    return {"q": f"prompt {number}", "left": f"one {number}", "right": f"two {number}", "winner": winner} | more


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


@pytest.fixture
def compare(ready):
    """Read rows of two texts and a choice."""
    return lambda rows, **named: ready(rows, **{"chosen": None, "rejected": None, "compared": COMPARED} | named)


def test_a_choice_says_which_text_won_and_ties_are_counted(compare):
    found = compare([comparison("a"), comparison("b", 1), comparison("=", 2), comparison("b", 3)])
    assert [(row["chosen"], row["rejected"]) for row in found.rows] == [
        ("one 0", "two 0"),
        ("two 1", "one 1"),
        ("two 3", "one 3"),
    ]
    assert found.dropped == {"ties": 1, "few_pairs": 0, "above_annotator": 0, "above_limit": 0}


def test_choices_may_be_numbers(compare):
    values = {"1": "first", "2": "second"}
    (row,) = compare([comparison(2)], compared=COMPARED | {"values": values}).rows
    assert row["chosen"] == "two 0"


def test_prompts_are_put_together_from_columns(read):
    (row,) = read([pair(side="against")], prompt=["q", "side"], separator="\n")
    assert row["prompt"] == "prompt 0\nagainst\n"
    assert row["prompt_id"] == text_id(row["prompt"])


def test_splits_may_have_other_names(read):
    names = {"train": "train", "dev": "validation", "test": "test"}
    rows = read([pair(1, part="dev"), pair(2, part="test")], split="part", splits=names)
    assert [row["split"] for row in rows] == ["validation", "test"]


def test_a_cap_holds_for_each_annotator_and_split_and_does_not_depend_on_order(ready):
    rows = [pair(n, who="busy", part="train") for n in range(30)]
    rows += [pair(n, who="busy", part="test") for n in range(30, 40)]
    rows += [pair(n, who="idle", part="train") for n in range(40, 43)]
    columns = {"annotator": "who", "split": "part", "per_annotator": 5}
    found = ready(rows, **columns)
    counted = {name: sum((row["annotator"], row["split"]) == name for row in found.rows) for name in KEPT}
    assert counted == KEPT
    assert found.dropped["above_annotator"] == 30
    again = ready(rows[::-1], **columns)
    assert {row["pair_id"] for row in again.rows} == {row["pair_id"] for row in found.rows}


KEPT = {("busy", "train"): 5, ("busy", "test"): 5, ("idle", "train"): 3}


def test_annotators_with_few_pairs_are_left_out_and_ties_do_not_count(compare):
    rows = [comparison("a", n, who="often") for n in range(3)]
    rows += [comparison("a", 3, who="seldom"), comparison("=", 4, who="seldom"), comparison("=", 5, who="seldom")]
    found = compare(rows, annotator="who", min_pairs=2)
    assert {row["annotator"] for row in found.rows} == {"often"}
    assert found.dropped == {"ties": 2, "few_pairs": 1, "above_annotator": 0, "above_limit": 0}


def test_nothing_left_says_why(compare):
    with pytest.raises(DataError, match=r"none of 2 rows is a pair .*\(2 ties\); loosen preferences\.source"):
        compare([comparison("="), comparison("=", 1)])


@pytest.mark.parametrize("winner", ["c", None])
def test_an_unknown_choice_names_row_and_remedy(compare, winner):
    with pytest.raises(DataError, match=r"row 1 of pairs\.jsonl: column winner holds .*, expected one of a, b, =; "):
        compare([comparison(winner)])


@pytest.mark.parametrize(
    "columns",
    [
        {"rejected": None},
        {"compared": COMPARED},
        {"chosen": None, "rejected": None},
        {"splits": {"dev": "validation"}},
    ],
)
def test_columns_that_contradict_each_other_are_refused(columns):
    with pytest.raises(ValidationError, match=r"name one way to tell which text won|name the column"):
        PreferenceColumns.model_validate(COLUMNS | {"metadata": []} | columns)


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
