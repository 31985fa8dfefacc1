from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError, StorageError
from mixdpo.registry.file_store import FileStore

ROOT = Path(__file__).parents[2]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


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
            assert FileStore(root).read("a", 1) == b"a"
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
print([stored.key for stored in store.list("")], os.listdir(root / "blobs"))
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
