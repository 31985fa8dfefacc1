"""Where files gather until all are there: one process at a time, and an interrupted one's work is taken up again."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixdpo.errors import RegistryError, StorageError


@contextmanager
def staging(target: Path, digest: str) -> Iterator[Path]:
    """Yield a directory beside `target`, from where it can be renamed to it; nobody else has it meanwhile.

    Where the block is interrupted, or a store does not answer, it is kept with what is in it, and the next one with
    this `digest` gets it. Otherwise nothing is left of it: after damaged files and a full disk too.
    """
    place = target.with_name(f".{target.name}.{digest[:12]}.part")
    lock = _lock(place, target)
    try:
        (place / "files").mkdir(exist_ok=True)
        try:
            yield place / "files"
        except (RegistryError, StorageError, OSError):
            _clear(place)
            raise
        _clear(place)
    finally:
        os.close(lock)


def _clear(place: Path) -> None:
    shutil.rmtree(place / "files", ignore_errors=True)
    with suppress(OSError):
        (place / "lock").unlink()  # from here on another process may have it
        place.rmdir()


def _lock(place: Path, target: Path) -> int:
    """Hold `place` for this process, waiting for another one that does; the open file that stands for that."""
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # who held it has just ended
            continue
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process that fetches {target}", file=sys.stderr, flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(place / "lock") and os.path.samestat(os.fstat(lock), os.stat(place / "lock")):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # of a place that is gone
