"""Blobs of fetched versions on this machine, named by their digest, so that versions share what they have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mixdpo.files import file_digest, replacing
from mixdpo.registry.store import CHUNK


class BlobCache:
    """Read-only files in one directory. Each is compared with its name when it is used, and removed if it differs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def link(self, sha256: str, to: Path) -> bool:
        """Make `to` the blob itself, where it is here; for files that nobody edits."""
        with suppress(OSError):  # absent, or on another disk
            os.link(self._path(sha256), to)
            if file_digest(to) == sha256:
                return True
            to.unlink()
            self._path(sha256).unlink()
        return False

    def copy(self, sha256: str, to: Path, copied: Callable[[int], object]) -> bool:
        """Make `to`, which does not exist, a copy of the blob, where it is here."""
        hasher = hashlib.sha256()
        try:
            source = self._path(sha256).open("rb")
        except OSError:
            return False
        with source, to.open("xb") as out:
            while chunk := source.read(CHUNK):
                hasher.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if hasher.hexdigest() == sha256:
            copied(to.stat().st_size)
            return True
        to.unlink()
        self._path(sha256).unlink(missing_ok=True)
        return False

    def keep(self, sha256: str, file: Path) -> None:
        """Have `file`, which has this digest and which nobody edits, here too."""
        with suppress(OSError):  # there already, or on a disk without hard links: nothing is shared then
            self._directory.mkdir(parents=True, exist_ok=True)
            os.link(file, self._path(sha256))

    def put(self, sha256: str, body: bytes) -> None:
        """Have these bytes here too."""
        if not self._path(sha256).exists():
            with replacing(self._path(sha256)) as temporary:
                temporary.write_bytes(body)
                temporary.chmod(0o444)

    def _path(self, sha256: str) -> Path:
        return self._directory / sha256
