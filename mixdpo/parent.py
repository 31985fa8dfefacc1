"""Ends this process as soon as the one that it works for is gone.

A killed `dvc repro` leaves the stage that it started alive, and run again it would start the stage a second time beside
the first one. A parent-death signal would not do: it asks for the death of the shell between DVC and the stage, which
outlives DVC. So a thread waits for all of them.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

DVC_STAGE = "DVC_STAGE"  # DVC sets it for the commands of stages, and is itself without it
GRACE_SECONDS = 5.0  # between asking and killing


def end_with_dvc() -> None:
    """Where DVC started this process, by whatever shells and launchers, do not outlive any of these, nor DVC.

    Nothing happens elsewhere: what a person starts may outlive their shell. DVC killed within the moment before this
    is called is not noticed.
    """
    if DVC_STAGE in os.environ:
        end_with(starters())


def starters() -> list[int]:
    """Ids of the processes from this one's parent up to the one that ran the stage."""
    found = [os.getppid()]
    with suppress(OSError):  # of another user, or gone: it cannot be looked beyond
        while found[-1] > 1 and _below_dvc(found[-1]):
            found.append(_parent(found[-1]))
    return found


def end_with(processes: Iterable[int]) -> None:
    """Ask this process to end when one of `processes` does, and kill it where it has not in GRACE_SECONDS.

    Linux alone can wait for processes that are no children; elsewhere this does nothing.
    """
    if not hasattr(os, "pidfd_open"):
        return
    poll = select.poll()
    try:
        for process in processes:
            poll.register(os.pidfd_open(process), select.POLLIN)
    except ProcessLookupError:
        _end()
    threading.Thread(target=_wait, args=(poll,), name="parent", daemon=True).start()


def _wait(poll: select.poll) -> None:
    poll.poll()
    _end()


def _end() -> None:
    with suppress(OSError):  # who read this may be gone as well
        print("mixdpo: what started this is gone, so this ends; run again to go on", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _below_dvc(process: int) -> bool:
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return any(each.startswith(f"{DVC_STAGE}=".encode()) for each in variables)


def _parent(process: int) -> int:
    # the name, in brackets, may hold anything
    return int(Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
