"""Garbage goes, and nothing that anybody needs: whatever a writer and a collection do in whatever order."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mixdpo.errors import RegistryError, TransientError
from mixdpo.registry import Registry, Version
from mixdpo.registry import lease as leases
from mixdpo.registry.collect import collect
from mixdpo.registry.file_store import FileStore
from mixdpo.registry.lease import LEASES, PLANS, Lease, leave_note
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_store import S3Store
from mixdpo.registry.store import Sent, Store, Stored, blob_key, unwatched

DAY = 86400.0
ORDERS = 40  # of the steps of a writer and a collection


def keys(store: Store, prefix: str = "blobs/") -> set[str]:
    return {stored.key for stored in store.list(prefix)}


def age(location: Path, days: float) -> None:
    """Everything is older by so much; a store on disk takes the time from its files."""
    for path in location.rglob("*"):
        if path.is_file():
            status = path.stat()
            os.utime(path, (status.st_atime, status.st_mtime - days * DAY))


def orphans(store: Store, policy: Path) -> None:
    """The blobs of a policy, as a writer leaves them who was killed before its commit."""
    for file in policy.rglob("*"):
        if file.is_file():
            body = file.read_bytes()
            store.put_once(blob_key(digest(body)), body, digest(body))


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_old_things_that_nothing_refers_to_go_and_all_else_stays(
    registry: Registry, location: Path, publish: Callable[..., Version], new_policy: Callable[..., Path], tmp_path: Path
) -> None:
    publish(1)
    publish(2)
    needed = keys(registry.store, "")
    orphans(registry.store, new_policy(tmp_path / "killed", 3))
    registry.store.put_once("manifests/sha256/" + "a" * 64 + ".json", b"{}", digest(b"{}"))
    registry.store.put_once("signatures/sha256/" + "a" * 64 + "/k.json", b"{}", digest(b"{}"))
    registry.store.put_once("blobs/README", b"of somebody", digest(b"of somebody"))
    (location / "blobs" / "sha256" / f".{'b' * 64}.0badf00d.part").write_bytes(b"half")
    assert collect(registry.store, delete=True).garbage == []
    age(location, 8)
    garbage = collect(registry.store, delete=False)
    assert len(garbage.garbage) == 1 + 1 + 1 + 1  # one weight file is of this policy alone
    assert keys(registry.store, "") > needed
    assert collect(registry.store, delete=True) == garbage
    assert keys(registry.store, "") == needed | {"blobs/README"}
    assert registry.store.unfinished("") == []
    assert collect(registry.store, delete=True).garbage == []
    registry.verify("reviews")


def test_what_only_an_entry_refers_to_stays(
    registry: Registry, location: Path, publish: Callable[..., Version]
) -> None:
    """As the evidence of a promotion: any digest in a log counts, whatever it stands for."""
    evidence = b"evidence"
    key = blob_key(digest(evidence))
    publish(1)
    registry.store.put_once(key, evidence, digest(evidence))
    registry.set_alias("reviews", "production", "v1", f"see {digest(evidence)}")
    age(location, 8)
    assert collect(registry.store, delete=True).garbage == []
    assert registry.store.exists(key)


def test_where_references_cannot_be_read_nothing_is_removed(
    registry: Registry, location: Path, publish: Callable[..., Version], overwrite: Callable[[Path, bytes], None]
) -> None:
    version = publish(1)
    publish(2)
    registry.store.put_once(blob_key(digest(b"x")), b"x", digest(b"x"))
    age(location, 8)
    manifest = location / "manifests" / "sha256" / f"{version.digest}.json"
    body = manifest.read_bytes()
    for damage in (lambda: overwrite(manifest, body[:-1]), manifest.unlink):
        damage()
        with pytest.raises(RegistryError, match=r"so nobody knows which files its version has; nothing was removed"):
            collect(registry.store, delete=True)
    manifest.write_bytes(body)
    entry = location / "log/reviews/0000000001.json"
    overwrite(entry, entry.read_bytes().replace(b"seed 1", b"seed  1"))
    with pytest.raises(RegistryError, match=r"the log of reviews is broken at log/reviews/0000000002\.json"):
        collect(registry.store, delete=True)
    assert registry.store.exists(blob_key(digest(b"x")))


def test_a_bucket_is_collected_with_its_unfinished_uploads(bucket: S3Location, policy: Path, tmp_path: Path) -> None:
    store = S3Store(bucket)
    Registry(store).register("reviews", policy, {}, "staging", "first")
    needed = keys(store, "")
    store.put_once(blob_key(digest(b"x")), b"x", digest(b"x"))
    store.client.create_multipart_upload(**bucket.object(blob_key("c" * 64)))
    assert [each.key for each in collect(store, delete=True).young] == [blob_key(digest(b"x"))]
    found = collect(store, delete=True, grace=0)
    assert {each.key for each in found.garbage} == {blob_key(digest(b"x")), blob_key("c" * 64)}
    assert (keys(store, ""), store.unfinished("")) == (needed, [])
    Registry(store).pull("reviews@staging", tmp_path / "target")


def test_what_a_lease_names_is_spared_until_it_ends(registry: Registry, location: Path) -> None:
    store = registry.store
    store.put_once(blob_key(digest(b"x")), b"x", digest(b"x"))
    age(location, 8)
    with Lease(store) as lease:
        lease.cover([digest(b"x")])
        for delete in (False, True):
            assert [each.key for each in collect(store, delete).leased] == [blob_key(digest(b"x"))]
    assert keys(store, LEASES) == set()
    assert len(collect(store, delete=True).garbage) == 1


def test_the_lease_of_a_dead_writer_is_revoked_and_a_living_one_notices(registry: Registry, location: Path) -> None:
    store = registry.store
    with Lease(store) as lease:
        lease.cover([digest(b"x")])
        store.put_once(blob_key(digest(b"x")), b"x", digest(b"x"))
        age(location, 8)
        assert len(collect(store, delete=True).garbage) == 1
        lease.settle(lambda: store.put_once(blob_key(digest(b"x")), b"x", digest(b"x")))
        assert store.exists(blob_key(digest(b"x")))
        assert len(keys(store, LEASES)) == 1


def test_a_writer_waits_for_a_collection_that_plans_what_it_needs_and_for_no_other(
    registry: Registry, location: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.01)
    plan = leave_note(registry.store, PLANS, [digest(b"x")])
    with Lease(registry.store) as other:
        other.cover([digest(b"y")])
    assert capsys.readouterr().err == ""
    with ThreadPoolExecutor(1) as pool, Lease(registry.store) as lease:
        waiting = pool.submit(lease.cover, [digest(b"x")])
        time.sleep(0.1)
        assert not waiting.done()
        registry.store.remove(plan)
        waiting.result(10)
    assert capsys.readouterr().err == "waiting for a garbage collection of the registry to end\n"
    leave_note(registry.store, PLANS, [digest(b"x")])  # of one that was killed
    age(location, 1)
    with Lease(registry.store) as lease:
        lease.cover([digest(b"x")])
    assert keys(registry.store, PLANS) == set()


def test_a_collection_that_takes_too_long_stops(
    registry: Registry, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.store.put_once(blob_key(digest(b"x")), b"x", digest(b"x"))
    age(location, 8)
    monkeypatch.setattr("mixdpo.registry.collect.PLAN_SECONDS", -1.0)
    with pytest.raises(TransientError, match="took so long that it stopped, to be safe; run it again"):
        collect(registry.store, delete=True)
    assert (len(keys(registry.store)), keys(registry.store, PLANS)) == (1, set())


class Turns:
    """Lets one of several threads make one step at a time, chosen by chance: every order can be had, and had again."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._stay = self._random.choice([0.0, 0.8, 0.95])  # how likely the next step is the same one's again
        self._last = ""
        self._changed = threading.Condition()
        self._waiting: dict[str, bool] = {}  # actor → whether it may go
        self._running = 0

    def step(self, actor: str) -> None:
        with self._changed:
            self._waiting[actor] = False
            self._running -= 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting[actor], 60)
            del self._waiting[actor]
            self._changed.notify_all()

    def run(self, actors: dict[str, Callable[[], Any]]) -> None:
        self._running = len(actors)
        with ThreadPoolExecutor(len(actors)) as pool:
            futures = [pool.submit(self._act, act) for act in actors.values()]
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._running == 0, 60)
                    if not self._waiting:
                        break
                    self._running += 1
                    if self._last not in self._waiting or self._random.random() >= self._stay:
                        self._last = self._random.choice(sorted(self._waiting))
                    self._waiting[self._last] = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: True not in self._waiting.values(), 60)
            for future in futures:
                future.result()

    def _act(self, act: Callable[[], Any]) -> None:
        try:
            act()
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()


class Stepping(FileStore):
    """A directory on which each operation waits for its turn."""

    def __init__(self, root: Path, turns: Turns, actor: str) -> None:
        super().__init__(root)
        self._step = lambda: turns.step(actor)

    def put_once(self, key: str, content: bytes | Path, sha256: str, sent: Sent = unwatched) -> bool:
        self._step()
        return super().put_once(key, content, sha256, sent)

    def open(self, key: str) -> BinaryIO:
        self._step()
        return super().open(key)

    def exists(self, key: str) -> bool:
        self._step()
        return super().exists(key)

    def remove(self, stored: Stored) -> None:
        self._step()
        super().remove(stored)

    def list(self, prefix: str, after: str = "") -> list[Stored]:
        self._step()
        return super().list(prefix, after)


@contextmanager
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What goes on side by side within one process is done in order, so that an order of steps can be had again."""

    def in_order(do: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [do(item) for item in items]

    with monkeypatch.context() as patched:
        for module in ("collect", "ledger", "publish"):
            patched.setattr(f"mixdpo.registry.{module}.in_parallel", in_order)
        patched.setattr(leases, "POLL_SECONDS", 0.0)
        patched.setattr(os, "fsync", lambda _: None)
        yield


@pytest.mark.parametrize("lifetime", [7 * DAY, -1.0], ids=["leases-live", "leases-expire-at-once"])
@pytest.mark.parametrize("seed", range(ORDERS))
def test_in_any_order_a_writer_that_finds_old_blobs_keeps_them(
    seed: int, lifetime: float, new_policy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location, turns = tmp_path / "registry", Turns(seed)
    policy = new_policy(tmp_path / "policy", size=100)
    orphans(FileStore(location), policy)
    FileStore(location).put_once(blob_key(digest(b"x")), b"x", digest(b"x"))
    age(location, 8)
    monkeypatch.setattr("mixdpo.registry.collect.LEASE_SECONDS", lifetime)
    writer = Registry(Stepping(location, turns, "writer"))
    with one_at_a_time(monkeypatch):
        turns.run(
            {
                "writer": lambda: writer.register("reviews", policy, {}, "staging", "first"),
                "collection": lambda: collect(Stepping(location, turns, "collection"), delete=True),
            }
        )
    Registry(location).verify("reviews")
    assert not FileStore(location).exists(blob_key(digest(b"x")))
    assert keys(FileStore(location), LEASES) | keys(FileStore(location), PLANS) == set()
