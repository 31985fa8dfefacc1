"""A registry kept in a directory, on a local or a shared disk."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mixdpo.errors import RegistryError, StorageError
from mixdpo.files import storage_errors

CHUNK = 1 << 20  # bytes read and written at once


class FileStore:
    """Keys are files below `root`. Nothing is created before the first `put_once`; reading needs no write access."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise RegistryError(f"the registry {root} is a file, expected a directory; name another in registry.url")
        self.root = root

    @property
    def location(self) -> str:
        return str(self.root)

    def put_once(self, key: str, content: bytes | Path, sha256: str) -> bool:
        final = self._path(key)
        if final.exists():
            return False
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.part")
        with storage_errors(final):
            _make_directories(final.parent)
            try:
                self._write(temporary, content, sha256)
                # link(2) fails where the name is taken, which rename(2) does not: the one atomic put-if-absent
                os.link(temporary, final)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise StorageError(
                        f"{self.root} is on a file system without hard links ({error.strerror}), on which concurrent "
                        "writers cannot be kept apart; put the registry on another disk"
                    ) from error
                raise
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(final.parent)
        return True

    def open(self, key: str) -> BinaryIO:
        with self._reading(key) as path:
            return path.open("rb")

    def size(self, key: str) -> int:
        with self._reading(key) as path:
            return path.stat().st_size

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str) -> list[str]:
        start = self.root / prefix.rpartition("/")[0]
        found: list[str] = []
        for directory, _, names in os.walk(start, onerror=_unlisted):
            folder = Path(directory).relative_to(self.root).as_posix()
            # names that begin with a dot are being written, or were when their writer was killed
            found += [f"{folder}/{name}".removeprefix("./") for name in names if not name.startswith(".")]
        return sorted(key for key in found if key.startswith(prefix))

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        assert all(part and not part.startswith(".") for part in parts), key
        return self.root.joinpath(*parts)

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        try:
            yield path
        except PermissionError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}; ask its owner for read access") from error

    @staticmethod
    def _write(path: Path, content: bytes | Path, sha256: str) -> None:
        hasher = hashlib.sha256()
        # read-only from the start (and as narrow as the user's umask): what is in the registry is not for editing
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as out:
            for chunk in _chunks(content):
                hasher.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if hasher.hexdigest() != sha256:
            raise RegistryError(
                f"{content if isinstance(content, Path) else path} changed while it was being published: expected "
                f"sha256 {sha256}, got {hasher.hexdigest()}; let what writes it finish, then register again"
            )


def _unlisted(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # os.walk would pass over it: what is unreadable is not absent
        raise StorageError(f"cannot list {error.filename}: {error.strerror}; ask its owner for read access") from error


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with os.fdopen(os.open(content, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


def _make_directories(path: Path) -> None:
    """mkdir -p, each new directory made durable in its parent."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
