from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import DataError
from mixdpo.reference.known import Known, content_keys

CONTENTS = st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3), st.booleans()), max_size=30)


def numbers(count: int, width: int = 2) -> np.ndarray:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


@given(CONTENTS, CONTENTS)
def test_every_known_content_gives_its_row_and_no_other_does(
    had: list[tuple[str, str, bool]], asked: list[tuple[str, str, bool]]
) -> None:
    rows = dict.fromkeys(had)
    values = numbers(len(rows))
    known = Known.of(content_keys(rows), values)
    keys = content_keys(had + asked)
    order = list(rows)
    places = [order.index(each) if each in rows else None for each in had + asked]
    missing = known.missing(keys).tolist()
    assert [place is None for place in places] == (known.places(keys) < 0).tolist()
    assert sorted({(had + asked)[at] for at in missing}) == sorted(set(asked) - set(had))
    assert len(missing) == len(set(asked) - set(had))
    assert missing == sorted(missing)
    np.testing.assert_array_equal(
        known.take(content_keys(had)), values[[order.index(each) for each in had]].reshape(-1, 2)
    )


def test_where_one_text_ends_and_the_next_begins_is_part_of_the_key() -> None:
    contents = [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), ("a\0b", "c"), ("é", ""), ("e\u0301", "")]
    assert len(set(content_keys(contents).tolist())) == len(contents)


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError, match="1 of 2 keys are not known, key 1 first"):
        Known.of(content_keys([("a",)]), numbers(1)).take(content_keys([("a",), ("b",)]))


def test_a_union_keeps_the_first_of_equal_keys() -> None:
    one = Known.of(content_keys([("a",), ("b",)]), numbers(2))
    other = Known.of(content_keys([("c",), ("b",)]), -numbers(2))
    both = Known.union([Known.nothing(), one, other])
    assert len(both) == 3
    np.testing.assert_array_equal(
        both.take(content_keys([("b",), ("c",)])), [one.take(content_keys([("b",)]))[0], [0, -1]]
    )
    assert len(both.only(content_keys([("c",), ("c",)]))) == 1


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_a_file_holds_what_was_written(rows: int, tmp_path: Path) -> None:
    keys = content_keys((str(place),) for place in range(rows))
    known = Known.of(keys, numbers(rows, 3))
    known.write(tmp_path / "k.parquet")
    again = Known.read(tmp_path / "k.parquet")
    assert np.array_equal(again.keys, known.keys)
    assert np.array_equal(again.values, known.values)
    table = pq.read_table(tmp_path / "k.parquet")
    assert table["key"].to_pylist() == [key.ljust(32, b"\0") for key in known.keys.tolist()]
    assert table["values"].to_pylist() == known.values.tolist()


def test_another_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a"], "values": [1.0]}), tmp_path / "k.parquet")
    with pytest.raises(DataError, match=r"k.parquet has other columns than this version writes; delete it"):
        Known.read(tmp_path / "k.parquet")
