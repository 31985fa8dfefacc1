"""A registry kept in a directory, on a local or a shared disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mixdpo.errors import RegistryError, StorageError
from mixdpo.files import storage_errors
from mixdpo.registry.store import Sent, Stored, check_digest, chunks, stream_digest, unwatched

_PART = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part")  # what a key is called while it is written


class FileStore:
    """Keys are files below `root`. Nothing is created before the first `put_once`; reading needs no write access."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise RegistryError(f"the registry {root} is a file, expected a directory; name another in registry.url")
        self.root = root

    @property
    def location(self) -> str:
        return str(self.root)

    def put_once(self, key: str, content: bytes | Path, sha256: str, sent: Sent = unwatched) -> bool:
        final = self._path(key)
        if final.exists():
            return False
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.part")
        with storage_errors(final):
            _make_directories(final.parent)
            try:
                self._write(temporary, content, sha256, sent)
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

    def read(self, key: str, limit: int) -> bytes:
        with self.open(key) as stream:
            return stream.read(limit)

    def open(self, key: str) -> BinaryIO:
        with self._reading(key) as path:
            return path.open("rb")

    def size(self, key: str) -> int:
        with self._reading(key) as path:
            return path.stat().st_size

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def holds(self, key: str, content: bytes | Path, sha256: str) -> bool:  # noqa: ARG002 (reading is as good)
        with self.open(key) as stream:
            return stream_digest(stream) == sha256

    def unfinished(self, prefix: str) -> list[Stored]:
        return sorted(stored for stored in self._walk(prefix) if stored.upload)

    def list(self, prefix: str, after: str = "") -> list[Stored]:
        return sorted(stored for stored in self._walk(prefix, after) if not stored.upload)

    def remove(self, stored: Stored) -> None:
        path = self._path(stored.key)
        with storage_errors(path):
            (path.with_name(stored.upload) if stored.upload else path).unlink(missing_ok=True)
            if path.parent.is_dir():
                _sync_directory(path.parent)

    def _walk(self, prefix: str, after: str = "") -> Iterator[Stored]:
        for directory, _, names in os.walk(self.root / prefix.rpartition("/")[0], onerror=_unlisted):
            for name in names:
                # names that begin with a dot are being written, or were when their writer was killed
                part = _PART.fullmatch(name)
                if name.startswith(".") and not part:
                    continue
                path = Path(directory, name)
                key = path.with_name(part["name"] if part else name).relative_to(self.root).as_posix()
                if key.startswith(prefix) and key > after:
                    with suppress(FileNotFoundError):  # removed since it was listed
                        status = path.stat()
                        yield Stored(key, status.st_size, status.st_mtime, name if part else "")

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
    def _write(path: Path, content: bytes | Path, sha256: str, sent: Sent) -> None:
        hasher = hashlib.sha256()
        # read-only from the start (and as narrow as the user's umask): what is in the registry is not for editing
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "wb") as out:
            for chunk in chunks(content):
                hasher.update(chunk)
                out.write(chunk)
                sent(len(chunk))
            out.flush()
            os.fsync(out.fileno())
        check_digest(path.name, content, sha256, hasher.hexdigest())


def _unlisted(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # os.walk would pass over it: what is unreadable is not absent
        raise StorageError(f"cannot list {error.filename}: {error.strerror}; ask its owner for read access") from error


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
