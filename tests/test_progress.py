from __future__ import annotations

import pytest

from mixdpo import progress
from mixdpo.progress import measure, track


def test_items_pass_through_in_order() -> None:
    assert list(track([3, 1, 2], "counting")) == [3, 1, 2]
    assert list(track((n for n in range(3)), "counting", total=3)) == [0, 1, 2]


def test_a_log_tells_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    # four were done before a resume, so two items take it to six
    assert list(track([1, 2], "scoring", done=4)) == [1, 2]
    assert capsys.readouterr().err == "scoring: 6/6, about 0 s left\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(track([1, 2], "scoring")) == [1, 2]
    assert "s left" not in capsys.readouterr().err


def test_a_log_tells_now_and_then_how_many_bytes_were_moved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 5.0, 20.0, 21.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with measure("fetching", total=4 << 20) as moved:
        for _ in range(3):
            moved(1 << 20)
    assert capsys.readouterr().err == "fetching: 2/4 MiB, about 20 s left\n"


def test_a_terminal_gets_a_bar_of_bytes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with measure("fetching", total=10) as moved:
        moved(10)
    assert "s left" not in capsys.readouterr().err
