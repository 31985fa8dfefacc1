from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo.data.tables import find_files, read_rows
from mixdpo.errors import DataError

ROWS = [{"text": "One, two.\nThree", "stars": 4}, {"text": "7", "stars": None}]


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def path(request, tmp_path):
    path = tmp_path / f"rows.{request.param}"
    if request.param == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif request.param == "csv":
        path.write_text('text,stars\n"One, two.\nThree",4\n7,\n')
    else:
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    return path


def test_three_formats_give_the_same_rows(path):
    rows = list(read_rows(path, ["text", "stars"], text=["text"]))
    assert [row.values for row in rows] == ROWS
    assert [row.origin for row in rows] == [f"row 1 of {path.name}", f"row 2 of {path.name}"]


def test_unknown_column_lists_the_columns_there_are(path):
    with pytest.raises(DataError) as error:
        list(read_rows(path, ["text", "rating"]))
    assert str(error.value) == f"{path} has no column rating; it has text, stars; correct `columns` in params.yaml"


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_broken_file_is_named(tmp_path, suffix):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(b"\xff\xfe{]")
    with pytest.raises(DataError, match=re.escape(str(path))):
        list(read_rows(path, ["text"]))


def test_broken_json_line_is_named(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=f"row 2 of {re.escape(str(path))} is not JSON .*correct or remove that line"):
        list(read_rows(path, ["text"]))


def test_a_type_is_that_of_the_whole_column_and_no_block_decides(tmp_path):
    path = tmp_path / "long.csv"
    count = 60_000  # more than a block of the reader
    path.write_text("text,stars\n" + "".join(f"7,{number % 5}\n" for number in range(count)) + "8,2.5\n")
    rows = [row.values for row in read_rows(path, ["stars", "text"], text=["text"])]
    assert len(rows) == count + 1
    assert rows[0] == {"text": "7", "stars": 0.0}
    assert isinstance(rows[0]["stars"], float)
    assert rows[-1] == {"text": "8", "stars": 2.5}


def test_a_field_that_some_lines_lack_is_null_there(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "stars": 2}\n')
    assert [row.values["stars"] for row in read_rows(path, ["text", "stars"])] == [None, 2]


def test_globs_give_each_file_once_in_order(tmp_path):
    for name in ("b.csv", "a.csv", "c.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files(["*.csv", "*.jsonl", "a.*"], tmp_path)] == ["a.csv", "b.csv", "c.jsonl"]


def test_glob_without_a_match_says_what_there_is(tmp_path):
    (tmp_path / "books.csv").touch()
    with pytest.raises(DataError) as error:
        find_files(["*.parquet"], tmp_path)
    assert str(error.value) == (
        f"no file matches *.parquet below {tmp_path}, which has books.csv; "
        "put the file there, or correct `inputs` or the path in params.yaml"
    )
    with pytest.raises(DataError, match="which has no such directory"):
        find_files(["*.parquet"], tmp_path / "absent")


@pytest.mark.parametrize("pattern", ["../secret.csv", "/etc/*.csv"])
def test_paths_stay_below_inputs(tmp_path, pattern):
    with pytest.raises(DataError, match="leaves the inputs directory"):
        find_files([pattern], tmp_path)


def test_other_formats_are_refused(tmp_path):
    (tmp_path / "rows.pkl").touch()
    with pytest.raises(DataError, match=r"rows.pkl is none of .parquet, .csv, .jsonl"):
        find_files(["rows.*"], tmp_path)
