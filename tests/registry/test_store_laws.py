"""What every store keeps to, tried on a directory and on a bucket of a real server."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError
from mixdpo.registry import Registry
from mixdpo.registry.file_store import FileStore
from mixdpo.registry.log import SCHEMA, Entry
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_store import S3Store
from mixdpo.registry.store import Store, blob_key, entry_key

WRITERS, ROUNDS = 16, 200
PART = 5 << 20  # the least that S3 takes

NewStore = Callable[[], Store]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture(params=["directory", "bucket"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
    """Opens one and the same place, as each writer does for itself."""
    if request.param == "directory":
        return lambda: FileStore(tmp_path / "registry")
    where: S3Location = request.getfixturevalue("bucket")
    return lambda: S3Store(where, part=PART)


@pytest.fixture
def store(new_store: NewStore) -> Store:
    return new_store()


def test_what_was_put_first_stays_for_good(store: Store) -> None:
    key = "log/a/1.json"
    assert not store.exists(key)
    assert store.put_once(key, b"first", sha256(b"first"))
    assert not store.put_once(key, b"second", sha256(b"second"))
    assert (store.read(key, 100), store.size(key), store.exists(key)) == (b"first", 5, True)


@pytest.mark.parametrize("size", [0, 1, 3 << 20, 2 * PART + 1])
def test_a_file_arrives_whole_and_each_byte_is_told_of(store: Store, tmp_path: Path, size: int) -> None:
    body, told = os.urandom(size), list[int]()
    (tmp_path / "weights").write_bytes(body)
    assert store.put_once("blobs/w", tmp_path / "weights", sha256(body), told.append)
    assert sum(told) == size
    with store.open("blobs/w") as stream:
        assert stream.read() == body
    assert [(each.key, each.size) for each in store.list("blobs/")] == [("blobs/w", size)]
    assert store.unfinished("") == []
    assert store.holds("blobs/w", tmp_path / "weights", sha256(body))
    assert store.holds("blobs/w", body, sha256(body))
    assert not store.holds("blobs/w", b"other", sha256(b"other"))
    assert not store.put_once("blobs/w", tmp_path / "weights", sha256(body))


@pytest.mark.parametrize("size", [3, 2 * PART + 1])
def test_content_that_is_not_what_it_was_when_hashed_is_not_put(store: Store, tmp_path: Path, size: int) -> None:
    body = os.urandom(size)
    source = tmp_path / "weights"
    source.write_bytes(body)
    with pytest.raises(RegistryError) as error:
        store.put_once("blobs/w", source, sha256(b"old"))
    assert str(error.value) == (
        f"{source} changed while it was being published: expected sha256 {sha256(b'old')}, got {sha256(body)}; "
        "let what writes it finish, then register again"
    )
    assert (store.list("blobs/"), store.unfinished("blobs/")) == ([], [])


def test_reading_gives_no_more_than_asked_and_an_absent_key_is_not_found(store: Store) -> None:
    store.put_once("x", b"123456", sha256(b"123456"))
    assert store.read("x", 4) == b"1234"
    with store.open("x") as stream:
        assert (stream.read(2), stream.read(100), stream.read(1)) == (b"12", b"3456", b"")
    for use in (store.size, store.open, lambda key: store.read(key, 1), lambda key: store.holds(key, b"", sha256(b""))):
        with pytest.raises(FileNotFoundError):
            use("absent")


def test_a_listing_has_what_begins_with_the_prefix_and_comes_after(store: Store) -> None:
    def listed(prefix: str, after: str = "") -> list[str]:
        return [stored.key for stored in store.list(prefix, after)]

    assert listed("log/") == []
    for key in ("log/b/2", "log/a/1", "log/ab/1", "blobs/x"):
        store.put_once(key, b"", sha256(b""))
    assert listed("log/") == ["log/a/1", "log/ab/1", "log/b/2"]
    assert listed("log/a/") == ["log/a/1"]
    assert listed("log/a") == ["log/a/1", "log/ab/1"]
    assert listed("log/", after="log/a/1") == ["log/ab/1", "log/b/2"]
    assert listed("log/", after="log/b/2") == []
    assert not {"blobs/x", "log/a/1"} - set(listed(""))


def test_what_is_removed_is_gone_and_its_place_free(store: Store) -> None:
    store.put_once("blobs/x", b"one", sha256(b"one"))
    (stored,) = store.list("blobs/")
    store.remove(stored)
    store.remove(stored)
    assert not store.exists("blobs/x")
    assert store.put_once("blobs/x", b"two", sha256(b"two"))
    assert store.read("blobs/x", 9) == b"two"


def test_of_sixteen_writers_exactly_one_gets_each_place_in_the_log_and_nobody_loses_a_blob(
    new_store: NewStore, request: pytest.FixtureRequest
) -> None:
    """200 times 16 writers try at once to add the next entry; the one after it is chained to whoever won.

    SeaweedFS lets a loser wait for a second or more, so there the 200 races are for places in several logs at a time.
    """
    logs = 40 if "bucket" in request.node.name else 1
    stores = [new_store() for _ in range(WRITERS)]
    for writer, store in enumerate(stores):
        blob = f"of writer {writer}".encode()
        assert store.put_once(blob_key(sha256(blob)), blob, sha256(blob))
    with ThreadPoolExecutor(logs) as pool:
        heads = list(pool.map(lambda log: race(stores, f"race-{log}", ROUNDS // logs), range(logs)))
    registry = Registry(new_store())
    histories = [
        registry.history(f"race-{log}") for log in range(logs)
    ]  # the fold checks that all is there and chained
    assert [history.head for history in histories] == heads
    assert sum(len(history.entries) for history in histories) == ROUNDS
    assert len(registry.store.list("blobs/")) == WRITERS


def race(stores: list[Store], name: str, rounds: int) -> str | None:
    """All try to add entries 1, 2, … of a log; the digest of the last one, as the one who put it knows it."""
    head = None
    with ThreadPoolExecutor(WRITERS) as pool:
        for seq in range(1, rounds + 1):
            start = threading.Barrier(WRITERS)
            bodies = [entry(seq, head, writer) for writer in range(WRITERS)]

            def put(
                writer: int, seq: int = seq, start: threading.Barrier = start, bodies: list[bytes] = bodies
            ) -> bool:
                start.wait(60)
                return stores[writer].put_once(entry_key(name, seq), bodies[writer], sha256(bodies[writer]))

            wins = list(pool.map(put, range(WRITERS)))
            assert sum(wins) == 1
            head = sha256(bodies[wins.index(True)])
    return head


def entry(seq: int, prev: str | None, writer: int) -> bytes:
    what = {"op": "register" if seq == 1 else "alias", "manifest": sha256(b"manifest"), "alias": "staging"}
    chained = {"schema": SCHEMA, "seq": seq, "prev": prev, "by": str(writer), "at": "now", "nonce": str(writer)}
    return Entry.model_validate({**what, "reason": "race", **chained}).to_bytes()
