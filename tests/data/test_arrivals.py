"""What lands is taken once, whole, and unchanged; what cannot be is told and kept."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixdpo.cli import main
from mixdpo.config import Params, parse_params
from mixdpo.data.arrivals import Arrived, look, take
from mixdpo.data.batches import read_batches
from mixdpo.data.gathering import Left
from mixdpo.data.sources import read_reviews
from mixdpo.errors import ConfigError, DataError, StorageError, ValidationStop
from mixdpo.files import directory_digest, file_digest, read_json
from mixdpo.layout import Layout
from mixdpo.registry.file_store import FileStore

DEMO: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "profiles" / "demo.yaml").read_text())
COLUMNS = {"text": "text", "label": "label", "stars": None, "user": None, "metadata": []}
BOOKS = {"domain": "book", "paths": ["books.jsonl", "arrivals/*/books/*"], "columns": COLUMNS, "labels": None}
NOW = 1_000_000.0
OLD = NOW - 3600


def params(bad: str = "quarantine", **changes: Any) -> Params:
    values = copy.deepcopy(DEMO)
    values["source"] = {"kind": "files", "sets": [{**BOOKS, "limit": None, **changes}]}
    values["arrivals"] = {"url": "landing", "settle_seconds": 60, "bad": bad}
    return parse_params(values)


def rows(*texts: str, label: object = 1) -> bytes:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text in texts).encode()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    inputs = tmp_path / "data" / "external"
    inputs.mkdir(parents=True)
    (inputs / "books.jsonl").write_bytes(rows("A book that was there from the start."))
    (tmp_path / "landing" / "books").mkdir(parents=True)
    return Layout(tmp_path)


Land = Callable[..., Path]


@pytest.fixture
def land(layout: Layout) -> Land:
    def land(name: str, body: bytes, at: float = OLD) -> Path:
        path = layout.root / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        os.utime(path, (at, at))
        return path

    return land


def texts(layout: Layout) -> list[str]:
    values = params()
    return [review["text"] for review in read_reviews(values.source, layout.root / values.inputs)]


def inputs_digest(layout: Layout) -> str:
    return directory_digest(layout.root / "data" / "external")


def test_new_files_become_a_batch_that_the_source_reads(layout: Layout, land: Land) -> None:
    land("books/week-1.jsonl", rows("One.", "Two."))
    first = take(params(), layout, NOW)
    land("books/week-2.csv", b"text,label\nThree.,0\n")
    second = take(params(), layout, NOW)
    assert (str(first), str(second)) == ("1 new file of 2 rows, 0 known", "1 new file of 1 row, 1 known")
    assert texts(layout) == ["A book that was there from the start.", "One.", "Two.", "Three."]
    assert second.batch is not None
    [arrival] = second.batch.files
    copied = layout.root / "data" / "external" / "arrivals" / "0002" / arrival.file
    assert arrival.source == "books/week-2.csv"
    assert arrival.sha256 == file_digest(copied) == file_digest(layout.root / "landing" / "books" / "week-2.csv")
    assert copied.parent.name == "books"
    assert arrival.sha256.startswith(copied.stem)
    assert read_batches(layout.root / "data" / "external") == [first.batch, second.batch]


def test_nothing_is_taken_twice_under_any_name_or_time(layout: Layout, land: Land) -> None:
    land("books/week-1.jsonl", rows("One."))
    take(params(), layout, NOW)
    before = inputs_digest(layout)
    land("books/week-1.jsonl", rows("One."), at=OLD + 60)
    land("books/copy.jsonl", rows("One."))
    assert take(params(), layout, NOW) == Arrived(str(layout.root / "landing"), None, (), 2)
    assert inputs_digest(layout) == before


def test_what_is_known_is_not_read_again(layout: Layout, land: Land) -> None:
    path = land("books/week-1.jsonl", rows("One."))
    take(params(), layout, NOW)
    path.write_bytes(rows("Two."))  # of the same size, and at the same time by its own word
    os.utime(path, (OLD, OLD))
    assert take(params(), layout, NOW).known == 1
    layout.landing_digests.write_text("{")  # which only saves reading
    assert str(take(params(), layout, NOW)) == "1 new file of 1 row, 0 known"


def test_the_same_files_give_the_same_bytes_wherever_and_whenever(layout: Layout, land: Land, tmp_path: Path) -> None:
    for name in ("b", "a"):
        land(f"books/{name}.jsonl", rows(f"From {name}."))
    other = Layout(Path(shutil.copytree(layout.root, tmp_path / "elsewhere", ignore=lambda *_: ["elsewhere"])))
    take(params(), layout, NOW)
    take(params(), other, NOW + 5e6)
    assert inputs_digest(layout) == inputs_digest(other)


def test_a_look_finds_the_same_and_keeps_nothing(layout: Layout, land: Land) -> None:
    land("books/week-1.jsonl", rows("One."))
    land("books/bad.jsonl", b"{")
    before = inputs_digest(layout)
    seen = look(params(), layout, NOW)
    assert inputs_digest(layout) == before
    assert not layout.arrivals_quarantine.exists()
    assert seen == take(params(), layout, NOW)


@pytest.mark.parametrize(
    ("name", "at", "reason"),
    [
        (
            "books/new.jsonl",
            NOW - 12,
            "it was written 12 s ago, so it may not be whole yet; files are taken after 60 s",
        ),
        ("books/new.jsonl", NOW + 99, "it was written 0 s ago"),
        ("books/week.jsonl.tmp", OLD, "it is none of .parquet, .csv, .jsonl"),
        ("week.jsonl", OLD, "expected a file in a directory"),
        ("books/my week.jsonl", OLD, "expected a file in a directory, both named with letters"),
    ],
)
def test_what_may_not_be_whole_waits_for_the_next_run(
    layout: Layout, land: Land, name: str, at: float, reason: str
) -> None:
    land(name, rows("One."), at)
    found = take(params("refuse"), layout, NOW)
    [left] = found.left
    assert (left.source, left.bad, found.batch) == (name, False, None)
    assert left.reason.startswith(reason)
    assert not (layout.root / "data" / "external" / "arrivals").exists()


def parquet(path: Path) -> bytes:
    pq.write_table(pa.table({"text": ["One."] * 50, "label": [1] * 50}), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("books/cut.parquet", None, "books/cut.parquet is not a readable .parquet file"),
        ("books/a.jsonl", b'{"text": "One.", "label": 1}\n{"te', "row 2 of books/a.jsonl is not JSON"),
        ("books/a.jsonl", rows("One.", label=7), "row 1 of a.jsonl: column label holds the label 7, expected one of"),
        ("books/a.csv", b"words\nOne.\n", "books/a.csv has no columns text, label; it has words"),
        ("books/a.csv", b"text,label\n", "no row of it is taken"),
        (
            "films/a.jsonl",
            rows("One."),
            "no set of source.sets or preferences.source reads it; add the path arrivals/*/",
        ),
    ],
)
def test_a_bad_file_is_put_aside_or_stops_the_run_and_is_lost_never(
    layout: Layout, land: Land, tmp_path: Path, name: str, body: bytes | None, reason: str
) -> None:
    body = parquet(tmp_path / "whole.parquet")[:-20] if body is None else body
    bad = land(name, body)
    land("books/good.jsonl", rows("Good."))
    with pytest.raises(ValidationStop) as caught:
        take(params("refuse"), layout, NOW)
    assert f"  {name}: {reason}" in str(caught.value)
    assert "set arrivals.bad to quarantine to go on without them" in str(caught.value)
    assert texts(layout) == ["A book that was there from the start."]

    found = take(params(), layout, NOW)
    assert texts(layout) == ["A book that was there from the start.", "Good."]
    [left] = found.left
    assert (left.source, left.bad) == (name, True)
    [(copied, told)] = read_json(layout.arrivals_quarantine / "manifest.json").items()
    assert told == {"source": name, "reason": left.reason}
    assert (layout.arrivals_quarantine / copied).read_bytes() == body == bad.read_bytes()
    # it is told again, until it is gone; once params.yaml reads it, it is taken
    assert take(params(), layout, NOW).left == found.left


def test_a_file_that_params_read_by_now_is_taken(layout: Layout, land: Land) -> None:
    land("books/a.jsonl", rows("One.", label="good"))
    assert take(params(), layout, NOW).bad
    assert take(params(labels={"good": 1, "0": 0, "1": 1}), layout, NOW).batch is not None


def test_a_file_that_is_written_to_while_it_is_read_is_left(
    layout: Layout, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = land("books/week-1.jsonl", rows("One."))
    land("books/week-2.jsonl", rows("Two."))
    read = FileStore.open

    def read_and_written(store: FileStore, key: str) -> Any:
        stream = read(store, key)
        if key == "books/week-1.jsonl":
            path.write_bytes(rows("One more."))
        return stream

    monkeypatch.setattr(FileStore, "open", read_and_written)
    found = take(params("refuse"), layout, NOW)
    assert [(each.source, each.bad) for each in found.left] == [("books/week-1.jsonl", False)]
    assert "it changed while it was read" in found.left[0].reason
    assert texts(layout)[1:] == ["Two."]


def test_a_file_that_may_not_be_read_is_left(layout: Layout, land: Land, monkeypatch: pytest.MonkeyPatch) -> None:
    path = land("books/secret.jsonl", rows("One."))

    opened = Path.open

    def denied(self: Path, *mode: Any, **more: Any) -> Any:  # root may read everything
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *mode, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        [left] = take(params("refuse"), layout, NOW).left
    assert (left.bad, left.reason) == (False, f"cannot read {path}: Permission denied; ask its owner for read access")


def test_a_changed_file_of_a_batch_is_refused(layout: Layout, land: Land) -> None:
    land("books/a.jsonl", rows("One."))
    take(params(), layout, NOW)
    [path] = (layout.root / "data" / "external" / "arrivals" / "0001" / "books").iterdir()
    path.chmod(0o644)
    path.write_bytes(rows("Two."))
    with pytest.raises(DataError, match=r"was changed since it arrived: its sha256 does not begin with"):
        texts(layout)


def test_a_killed_run_leaves_nothing_half_taken(layout: Layout, land: Land, monkeypatch: pytest.MonkeyPatch) -> None:
    land("books/a.jsonl", rows("One."))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mixdpo.data.arrivals.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            take(params(), layout, NOW)
    assert texts(layout) == ["A book that was there from the start."]
    # killed so hard that it could not tidy up
    leftover = layout.root / "data" / "external" / "arrivals" / ".arriving-x" / "arrivals" / "0001" / "books"
    leftover.mkdir(parents=True)
    (leftover / "a.jsonl").write_bytes(rows("Half."))
    assert texts(layout) == ["A book that was there from the start."]
    assert take(params(), layout, NOW).batch is not None
    assert texts(layout) == ["A book that was there from the start.", "One."]
    assert not leftover.exists()


def test_a_run_killed_anywhere_leaves_whole_batches_and_the_next_one_takes_the_rest(layout: Layout, land: Land) -> None:
    written = [f"Review {number}." for number in range(40)]
    rng = random.Random(0)
    for chunk in range(4):
        for number, text in list(enumerate(written))[chunk * 10 : chunk * 10 + 10]:
            land(f"books/{number}.jsonl", rows(text))
        for _ in range(6):
            child = os.fork()
            if child == 0:
                take(params(), layout, NOW)
                os._exit(0)
            time.sleep(rng.uniform(0, 0.3))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            found = texts(layout)[1:]  # every file is what its name says
            assert len(set(found)) == len(found)
    take(params(), layout, NOW)
    assert sorted(texts(layout)[1:]) == sorted(written)
    assert sum(len(batch.files) for batch in read_batches(layout.root / "data" / "external")) == 40


def test_two_projects_with_the_same_inputs_take_one_after_the_other(
    layout: Layout, land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    land("books/a.jsonl", rows("One."))
    monkeypatch.setattr("mixdpo.data.arrivals.read_batches", lambda _: [])  # as it was before the other one was done
    take(params(), layout, NOW)
    land("books/b.jsonl", rows("Two."))
    with pytest.raises(StorageError, match="0001 was taken by another run at this moment; run again"):
        take(params(), layout, NOW)
    assert texts(layout) == ["A book that was there from the start.", "One."]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(["One.", "Two.", "Three.", None]), max_size=3), max_size=4))
def test_each_content_is_there_once_and_batches_only_grow(
    layout: Layout, land: Land, weeks: list[list[str | None]]
) -> None:
    for place in (layout.root / "landing" / "books", layout.root / "data" / "external" / "arrivals"):
        shutil.rmtree(place, ignore_errors=True)
    layout.landing_digests.unlink(missing_ok=True)
    expected: list[str] = []
    batches: list[object] = []
    for week, bodies in enumerate(weeks):
        for number, text in enumerate(bodies):
            land(f"books/{week}-{number}.jsonl", b"{" if text is None else rows(text))
        take(params(), layout, NOW)
        expected += sorted({text for text in bodies if text is not None} - set(expected))
        now = read_batches(layout.root / "data" / "external")
        assert now[: len(batches)] == batches
        batches = list(now)
    assert sorted(texts(layout)[1:]) == sorted(expected)


def test_params_say_where_and_how() -> None:
    values = copy.deepcopy(DEMO) | {"arrivals": {"url": "landing", "settle_seconds": 60, "bad": "refuse"}}
    with pytest.raises(ConfigError, match="nothing reads what arrives there; add a path such as"):
        parse_params(values)
    with pytest.raises(ConfigError, match="limit is 10, but paths name what arrives"):
        params(limit=10)


def test_a_landing_place_that_is_not_there_is_told(layout: Layout) -> None:
    (layout.root / "landing" / "books").rmdir()
    (layout.root / "landing").rmdir()
    with pytest.raises(DataError, match="where files are to arrive, is no directory; make it"):
        take(params(), layout, NOW)


def test_left_and_bad_are_counted() -> None:
    left = (Left("a", "", bad=False), Left("b", "", bad=True))
    assert str(Arrived("here", None, left, 2)) == "no new file, 2 known, 1 left, 1 bad"


def test_the_command_tells_and_takes(layout: Layout, land: Land) -> None:
    land("books/a.jsonl", rows("One."))
    land("books/b.jsonl", b"{")
    (layout.root / "params.yaml").write_text(yaml.safe_dump(params().model_dump(mode="json", by_alias=True)))
    for arguments in ([], ["--take"]):
        done = CliRunner().invoke(main, ["--root", str(layout.root), "arrivals", *arguments])
        assert done.exit_code == 0, done.output
        first, taken, bad = done.output.splitlines()
        assert first == f"{layout.root / 'landing'}: 1 new file of 1 row, 0 known, 1 bad"
        assert taken == "  books/a.jsonl  1 row"
        assert bad.startswith("  books/b.jsonl  bad: row 1 of books/b.jsonl is not JSON")
    assert texts(layout)[1:] == ["One."]
