"""Files are replaced whole or not at all, and digests depend on content alone."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import DataError, StorageError
from mixdpo.files import canonical_json, digest, directory_digest, file_digest, read_json, replacing, write_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def listing(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_file_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert listing(path.parent) == {"file.txt"}


def test_a_directory_takes_the_place_of_the_earlier_one_with_all_that_was_in_it(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("old.bin", "new.bin"):
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert listing(path) == {"new.bin"}
    assert listing(tmp_path) == {"model"}


@pytest.mark.parametrize("directory", [False, True])
def test_an_error_leaves_the_earlier_one_and_no_rest(tmp_path: Path, directory: bool) -> None:
    path = tmp_path / "out"
    path.write_text("earlier")

    def stopped() -> None:
        with replacing(path) as temporary:
            if directory:
                temporary.mkdir()
            (temporary / "half" if directory else temporary).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "earlier"
    assert listing(tmp_path) == {"out"}


def test_numbers_that_json_has_not_are_refused_and_the_earlier_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"b": 1.5, "a": "ä"})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"b": math.nan})
    assert path.read_bytes() == before
    assert read_json(path) == {"a": "ä", "b": 1.5}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_says_what_to_free_and_that_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "out"
    told = pytest.raises(StorageError, match=r"^no space left while writing .*: its earlier version is untouched; free")
    with told, replacing(path), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"more than nothing")
    assert listing(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_is_not_writable_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match=r"^cannot write .*; make the directory writable$"):
            write_json(tmp_path / "out.json", {})
    finally:
        tmp_path.chmod(0o700)


def test_reading_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with pytest.raises(DataError, match=r"metrics.json does not exist; run the stage that writes it first"):
        read_json(path)
    path.write_text("{half")
    with pytest.raises(DataError, match=r"metrics.json is not JSON \(.*\); delete it and run the stage"):
        read_json(path)


@given(value=JSON)
def test_canonical_json_is_one_text_for_one_value(value: object) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text
    assert json.loads(text) == value


def test_the_order_of_keys_does_not_matter_and_that_of_items_does() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_a_directory_is_known_by_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / "file").write_text("same")
    assert directory_digest(tmp_path / "a") == directory_digest(tmp_path / "b")
    assert file_digest(tmp_path / "a" / "in" / "file") == file_digest(tmp_path / "b" / "in" / "file")
    (tmp_path / "b" / "in" / "file").rename(tmp_path / "b" / "in" / "other")
    assert directory_digest(tmp_path / "a") != directory_digest(tmp_path / "b")
