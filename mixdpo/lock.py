"""A lock that one process holds for as long as it lives, and that tells the others who it is."""

from __future__ import annotations

import fcntl
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from mixdpo.errors import TransientError
from mixdpo.files import storage_errors

PATIENCE_SECONDS = 15.0  # in which a process that was asked to end does
POLL_SECONDS = 0.1


@contextmanager
def held(path: Path, what: str, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Be the only one who holds the lock `path`; the system takes it from a process that dies, however it dies.

    Args:
        what: as in "the outputs of train moe", for the message.
        patience: seconds to wait for the holder.

    Raises:
        TransientError: somebody else still holds it; says who.
        StorageError: the file cannot be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    # the file stays: two processes could otherwise hold locks on two files of one name
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        if not _taken(file.fileno()):
            _wait(file.fileno(), path, what, patience)
        file.seek(0)
        file.truncate()
        file.write(_self())
        file.flush()
        yield


def _wait(descriptor: int, path: Path, what: str, patience: float) -> None:
    print(f"waiting for {_holder(path)}, which holds {what}", file=sys.stderr, flush=True)
    deadline = time.monotonic() + patience
    while not _taken(descriptor):
        if time.monotonic() > deadline:
            raise TransientError(
                f"{_holder(path)} holds {what}: two that write them would spoil them; wait for it to end, or end it, "
                "then run again"
            )
        time.sleep(POLL_SECONDS)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _self() -> str:
    command = shlex.join(Path(word).name if place == 0 else word for place, word in enumerate(sys.argv))
    now = datetime.now(UTC).isoformat(" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} (`{command}`, since {now})"


def _holder(path: Path) -> str:
    return path.read_text(encoding="utf-8") or "a process that has just begun"
