from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mixdpo.reference import store
from mixdpo.reference.known import Keys, content_keys
from mixdpo.reference.store import Store, forget_oldest


def keys(*names: str) -> Keys:
    return content_keys((name,) for name in names)


class Scored:
    """Gives each key the number of its call, and notes how many it was asked for."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, places: np.ndarray) -> np.ndarray:
        self.calls.append(len(places))
        return np.full((len(places), 1), len(self.calls), np.float32)


def test_what_is_known_is_not_computed_again_by_this_run_or_a_later_one(tmp_path: Path) -> None:
    first, scored = Store(tmp_path), Scored()
    assert first.ask(keys("a", "b", "a"), scored, "x").tolist() == [[1], [1], [1]]
    assert first.ask(keys("b", "c"), scored, "x").tolist() == [[1], [2]]
    assert scored.calls == [2, 1]
    later = Store(tmp_path)
    assert later.ask(keys("c", "a"), scored, "x").tolist() == [[2], [1]]
    assert scored.calls == [2, 1]
    assert np.array_equal(later.asked().keys, np.unique(keys("a", "c")))


def test_a_run_that_stops_keeps_its_finished_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SEGMENT", 2)
    scored = Scored()

    def stopping(places: np.ndarray) -> np.ndarray:
        if len(scored.calls) == 2:
            raise KeyboardInterrupt
        return scored(places)

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).ask(keys(*"abcde"), stopping, "x")
    found = Store(tmp_path).ask(keys(*"abcde"), scored, "x")
    assert found[:, 0].tolist() == [1, 1, 2, 2, 3]


def test_tidying_leaves_one_file_and_no_more_strangers_than_rows_in_use(tmp_path: Path) -> None:
    scored = Scored()
    for names in ("abcd", "cdef"):
        run = Store(tmp_path)
        run.ask(keys(*names), scored, "x")
        run.tidy()
        assert len(list(tmp_path.iterdir())) == 1
    assert scored.calls == [4, 2]
    kept = Store(tmp_path)
    kept.ask(keys(*"abcdef"), scored, "x")  # two strangers to four in use stay
    assert scored.calls == [4, 2]
    last = Store(tmp_path)
    last.ask(keys("a"), scored, "x")
    last.tidy()
    assert len(list(tmp_path.iterdir())) == 1
    Store(tmp_path).ask(keys(*"ab"), scored, "x")
    assert scored.calls == [4, 2, 1]


def test_a_run_that_asks_for_nothing_forgets_nothing(tmp_path: Path) -> None:
    scored = Scored()
    Store(tmp_path).ask(keys("a", "b"), scored, "x")
    Store(tmp_path).tidy()
    Store(tmp_path).ask(keys("a", "b"), scored, "x")
    assert scored.calls == [2]


def test_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    one, other, scored = Store(tmp_path), Store(tmp_path), Scored()
    one.ask(keys("a", "b"), scored, "x")
    other.ask(keys("b", "c"), scored, "x")
    one.tidy()
    assert other.ask(keys("c", "b"), scored, "x").tolist() == [[2], [2]]
    other.tidy()
    Store(tmp_path).ask(keys("b", "c"), scored, "x")
    assert scored.calls == [2, 2]


def test_a_damaged_segment_is_computed_again(tmp_path: Path) -> None:
    scored = Scored()
    Store(tmp_path).ask(keys("a"), scored, "x")
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes()[:-8])
    again = Store(tmp_path)
    assert again.ask(keys("a"), scored, "x").tolist() == [[2]]
    again.tidy()
    assert len(list(tmp_path.iterdir())) == 1


def test_the_stores_that_were_used_the_longest_ago_make_room(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "older")):
        (tmp_path / name / "logps").mkdir(parents=True)
        (tmp_path / name / "logps" / "x.parquet").write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    forget_oldest(tmp_path / "old", room=250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    forget_oldest(tmp_path / "newest", room=150)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", "old"]
    forget_oldest(tmp_path / "old", room=10)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
