from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError, StorageError
from mixdpo.registry.file_store import FileStore
from mixdpo.registry.store import get

WRITERS, ROUNDS = 8, 20
ROOT = Path(__file__).parents[2]

RACER = """
import hashlib, sys, time
from pathlib import Path
from mixdpo.registry.file_store import FileStore

store, body = FileStore(Path(sys.argv[1])), sys.argv[2].encode() * 1000
digest = hashlib.sha256(body).hexdigest()
print("ready", flush=True)
for line in sys.stdin:
    key, start = line.split()
    while time.monotonic() < float(start):
        pass
    print(store.put_once(key, body, digest), flush=True)
"""


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_put_once_keeps_the_first_bytes_for_good(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "registry")
    assert not store.exists("log/a/1.json")
    assert store.put_once("log/a/1.json", b"first", sha256(b"first"))
    assert not store.put_once("log/a/1.json", b"second", sha256(b"second"))
    assert get(store, "log/a/1.json", limit=100) == b"first"
    assert (store.size("log/a/1.json"), store.exists("log/a/1.json")) == (5, True)


def test_put_once_streams_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    body = os.urandom(3 << 20)  # several chunks
    (tmp_path / "weights").write_bytes(body)
    store = FileStore(tmp_path / "registry")
    assert store.put_once("blobs/w", tmp_path / "weights", sha256(body))
    assert get(store, "blobs/w", limit=len(body)) == body
    assert os.listdir(tmp_path / "registry" / "blobs") == ["w"]
    assert (tmp_path / "registry" / "blobs" / "w").stat().st_mode & 0o222 == 0


def test_get_reads_no_more_than_asked_and_one(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put_once("x", b"123456", sha256(b"123456"))
    assert get(store, "x", limit=3) == b"1234"


def test_content_that_is_not_what_it_was_when_hashed_is_not_put(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"new")
    store = FileStore(tmp_path / "registry")
    with pytest.raises(RegistryError) as error:
        store.put_once("blobs/w", source, sha256(b"old"))
    assert str(error.value) == (
        f"{source} changed while it was being published: expected sha256 {sha256(b'old')}, got {sha256(b'new')}; "
        "let what writes it finish, then register again"
    )
    assert os.listdir(tmp_path / "registry" / "blobs") == []


def test_list_gives_the_keys_below_a_prefix_but_nothing_unfinished(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "registry")
    assert store.list("log/") == []
    for key in ("log/b/2", "log/a/1", "log/ab/1", "blobs/x"):
        store.put_once(key, b"", sha256(b""))
    (tmp_path / "registry" / "log" / "a" / ".2.0badf00d.part").write_bytes(b"half")
    assert store.list("log/") == ["log/a/1", "log/ab/1", "log/b/2"]
    assert store.list("log/a/") == ["log/a/1"]
    assert store.list("log/a") == ["log/a/1", "log/ab/1"]


def test_of_eight_processes_exactly_one_gets_each_position(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(tmp_path / "registry")]
    racers = [
        subprocess.Popen([*command, str(i)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(WRITERS)
    ]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * WRITERS  # type: ignore[union-attr]
        for turn in range(ROUNDS):
            key, start = f"log/race/{turn:010d}.json", time.monotonic() + 0.01
            for racer in racers:
                racer.stdin.write(f"{key} {start}\n")  # type: ignore[union-attr]
                racer.stdin.flush()  # type: ignore[union-attr]
            won = [racer.stdout.readline() == "True\n" for racer in racers]  # type: ignore[union-attr]
            assert sum(won) == 1
            assert (tmp_path / "registry" / key).read_bytes() == str(won.index(True)).encode() * 1000
    finally:
        for racer in racers:
            racer.communicate(timeout=30)
    assert len(os.listdir(tmp_path / "registry" / "log" / "race")) == ROUNDS


def test_a_directory_that_cannot_be_written_is_a_clear_error(
    unprivileged: Callable[[], AbstractContextManager[None]],
) -> None:
    with tempfile.TemporaryDirectory() as shared:  # pytest's own directories are closed to other users
        os.chmod(shared, 0o755)
        root = Path(shared, "registry")
        FileStore(root).put_once("a", b"a", sha256(b"a"))
        root.chmod(0o555)
        with unprivileged(), pytest.raises(StorageError) as error:
            FileStore(root).put_once("b", b"b", sha256(b"b"))
        assert str(error.value) == f"cannot write {root}/b: Permission denied; make the directory writable"
        with unprivileged():
            assert get(FileStore(root), "a", limit=1) == b"a"
        (root / "a").chmod(0)
        with unprivileged(), pytest.raises(StorageError, match=f"^cannot read {root}/a: Permission denied; ask its"):
            FileStore(root).open("a")
        root.chmod(0o700)
        with unprivileged(), pytest.raises(StorageError, match=f"^cannot list {root}/log: Permission denied; ask its"):
            FileStore(root).list("log/")


FULL = """
import hashlib, os, sys
from pathlib import Path
from mixdpo.errors import StorageError
from mixdpo.registry.file_store import FileStore

body, root = bytes(2 << 20), Path(sys.argv[1], "registry")
store = FileStore(root)
store.put_once("small", b"", hashlib.sha256(b"").hexdigest())
try:
    store.put_once("blobs/large", body, hashlib.sha256(body).hexdigest())
except StorageError as error:
    print(error)
print(store.list(""), os.listdir(root / "blobs"))
"""


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=1m tmpfs "$1"'
    if (
        not shutil.which("unshare")
        or subprocess.run(
            ["unshare", "-rm", "sh", "-c", mount, "-", str(tmp_path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a small disk to fill needs `unshare -rm` and tmpfs")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$2" -c "$3" "$1"', "-", str(tmp_path), sys.executable, FULL],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    message, left = done.stdout.splitlines()
    assert message.startswith(f"no space left while writing {tmp_path}/registry/blobs/large: ")
    assert "free space on that disk" in message
    assert left == "['small'] []"


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("")
    with pytest.raises(RegistryError, match=r"registry is a file, expected a directory; name another in registry\.url"):
        FileStore(tmp_path / "registry")
