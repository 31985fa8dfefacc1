from __future__ import annotations

import json

import pyarrow as pa
import pytest

from mixdpo.config.data import Splits
from mixdpo.config.models import CorruptionLabels, FileLabels, ReviewLabels
from mixdpo.data.schema import REVIEWS, role_of, split_of, text_id
from mixdpo.errors import DataError
from mixdpo.rewards.labels import read_examples, split_sentences

SPLITS = Splits(validation=0.2, test=0.2)


def from_reviews(field="label", bounds=(0, 1)):
    return ReviewLabels(kind="reviews", field=field, range=bounds)


def from_files(bounds=(1, 5), limit=None, target="score"):
    return FileLabels(kind="files", paths=["*.jsonl"], text="text", target=target, range=bounds, limit=limit)


def corruptions(limit=100):
    return CorruptionLabels(kind="corruptions", limit=limit)


@pytest.fixture
def read(tmp_path, reviews):
    def read(*sources, rows=(), table=reviews):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_examples(sources, table, tmp_path, SPLITS, seed=0)

    return read


def test_reviews_keep_their_split_and_role_by_hash(read, reviews):
    by_text = {row["text"]: row for row in reviews.to_pylist()}
    examples = read(from_reviews())
    assert len(examples) == len(by_text)
    for example in examples:
        row = by_text[example.text]
        assert (example.target, example.split) == (row["label"], row["split"])
        assert example.role == role_of(row["review_id"])


def test_metadata_is_mapped_by_range(read):
    assert {example.target for example in read(from_reviews("votes", (0, 4)))} == {0, 0.25, 0.5, 0.75, 1}
    assert {example.target for example in read(from_reviews("votes", (4, 0)))} == {0, 0.25, 0.5, 0.75, 1}


def test_files_are_split_by_the_hash_of_the_text(read):
    rows = [{"text": f"sentence {place}", "score": 1 + place % 5} for place in range(60)]
    for example in read(from_files(), rows=rows):
        place = int(example.text.split()[1])
        assert example.target == (place % 5) / 4
        assert example.split == split_of(text_id(example.text), 0.2, 0.2)
        assert example.role == role_of(text_id(example.text))
    few = read(from_files(limit=10), rows=rows)
    assert few == read(from_files(limit=10), rows=rows[::-1])
    assert len(few) == 10


def test_no_text_is_in_two_roles_or_splits(read):
    rows = [{"text": f"sentence {place}", "score": 1 + place % 5} for place in [*range(60), *range(60)]]
    examples = read(from_reviews(), from_files(), corruptions(), rows=rows)
    assert len({example.text for example in examples}) == len(examples)
    assert {(example.role, example.split) for example in examples} == {
        (role, split) for role in ("annotator", "judge") for split in ("train", "validation", "test")
    }


def test_corruptions_come_in_pairs_with_role_and_split_of_their_review(read, reviews):
    examples = read(corruptions(50))
    whole, damaged = examples[::2], examples[1::2]
    assert {example.target for example in whole} == {1.0}
    assert {example.target for example in damaged} == {0.0}
    assert len(whole) == len(damaged) == 50
    places = {s: row for row in reviews.to_pylist() for s in split_sentences(row["text"])}
    for good, bad in zip(whole, damaged, strict=True):
        assert good.text != bad.text
        assert (good.role, good.split) == (bad.role, bad.split)
        assert good.split == places[good.text]["split"]
    assert examples == read(corruptions(50))


def test_faulty_reviews_give_no_faultless_sentences(read, reviews):
    faulty = {row["text"] for row in reviews.to_pylist() if row["label"] == 0}
    sentences = {s for text in faulty for s in split_sentences(text)}
    for example in read(from_reviews(), corruptions(1000)):
        if example.whole and example.target == 1.0:
            assert example.text not in sentences


def test_unlabelled_reviews_are_left_out(read, reviews):
    rows = reviews.to_pylist()
    for row in rows[:100]:
        row["label"] = None
    examples = read(from_reviews(), table=pa.Table.from_pylist(rows, schema=REVIEWS))
    assert len(examples) == len(rows) - 100


@pytest.mark.parametrize(
    ("sources", "rows", "message"),
    [
        ([from_reviews("taste")], [], r"no review has a value for taste; the columns label, stars .* name, votes"),
        ([from_reviews("votes")], [], r"review [0-9a-f]{64}: votes is 2, outside 0 to 1; correct the row, or `range`"),
        ([from_reviews("name")], [], r"name is 'x', expected a number from 0 to 1"),
        ([from_files()], [], r"has no rows; name files with labelled texts"),
        ([from_files(target="mark")], [{"text": "a", "score": 1}], r"has no column mark; it has text, score"),
        ([from_files()], [{"text": "a", "score": 9}], r"row 1 of a.jsonl: score is 9, outside 1 to 5"),
        ([from_files()], [{"text": "a", "score": float("nan")}], r"score is nan, outside 1 to 5"),
        ([from_files()], [{"text": "a", "score": None}], r"row 1 of a.jsonl: score is None, expected a number"),
        ([from_files()], [{"text": " ", "score": 2}], r"row 1 of a.jsonl: column text is empty, expected text"),
    ],
)
def test_bad_labels_name_the_row_and_the_remedy(read, sources, rows, message):
    with pytest.raises(DataError, match=message):
        read(*sources, rows=rows)


def test_empty_reviews_are_refused(read, reviews):
    with pytest.raises(DataError, match="the validated reviews are empty"):
        read(from_reviews(), table=reviews.slice(0, 0))
    with pytest.raises(DataError, match="hold no faultless sentence of 4 to 40 words"):
        read(corruptions(), table=reviews.slice(0, 0))
