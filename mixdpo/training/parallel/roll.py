"""Which rank is gone? Each writes a sign of life into the store that all can read; who stops hearing the others looks.

Without it a rank whose neighbour died says only that a connection was closed, and names an address.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from mixdpo.errors import MixDPOError, TrainingError

# between two signs of life, at most; fewer where ranks are to wait for each other for a shorter time
BEAT_SECONDS = 1.0
# so many signs that did not come make a rank dead
MISSED = 5
REMEDY = "start it again: training goes on from its last checkpoint"


class Roll:
    """Signs of life of all ranks.

    Attributes:
        at: what this rank is doing, for the others to read; whoever trains sets it.
    """

    def __init__(self, store: Store, rank: int, ranks: int, patience: float) -> None:
        """Args: patience: seconds that ranks wait for each other."""
        # clones have connections of their own: nobody waits for another's answer
        self._store, beats = store.clone(), store.clone()  # type: ignore[attr-defined]
        self.rank, self.ranks = rank, ranks
        self.at = 0
        self._pause = min(BEAT_SECONDS, patience / (2 * MISSED))
        self._over = threading.Event()
        self._store.set(f"who/{rank}", f"{socket.gethostname()}, process {os.getpid()}")
        self._thread = threading.Thread(target=self._beat, args=(beats,), daemon=True)

    def __enter__(self) -> Roll:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def leave(self, error: BaseException) -> None:
        """Tell the others why this rank stops."""
        line = next(iter(str(error).splitlines()), "")
        with suppress(RuntimeError):  # the store may have gone too; its keeper's end is told elsewhere
            self._store.set(f"left/{self.rank}", f"{type(error).__name__}: {line}")

    def missing(self) -> str:
        """Who gives no sign of life, has left, or lags behind, in words; takes a few beats.

        The first who looks says it for all: those who ask later would find that one gone too.
        """
        try:
            before = self._all("beat")
            time.sleep(self._pause * MISSED)
            found = self._judge(before, self._all("beat"))
            verdict: bytes = self._store.compare_set("verdict", "", found)
            return verdict.decode()
        except RuntimeError:
            return "the process that keeps the list of ranks (torchrun's agent, or rank 0) does not answer"

    def announce(self, what: str) -> None:
        """Tell ranks that wait for it (`wait_for`)."""
        self._store.set(f"done/{what}", "done")

    def wait_for(self, what: str) -> None:
        """Wait until a rank announces something, for as long as that takes.

        Raises:
            TrainingError: the rank that would, the first one, has left or gives no sign of life.
        """
        beat, silent = "", 0
        while not self._store.check([f"done/{what}"]):
            time.sleep(self._pause)
            before, beat = beat, self._all("beat")[0]
            silent = silent + 1 if beat == before else 0
            if silent >= 2 * MISSED or self._all("left")[0]:
                raise TrainingError(f"{self.missing()}; {REMEDY}")

    def _judge(self, before: list[str], after: list[str]) -> str:
        names = [f"rank {rank} of {self.ranks} ({who})" for rank, who in enumerate(self._all("who"))]
        if left := [f"{names[rank]} stopped: {why}" for rank, why in enumerate(self._all("left")) if why]:
            return "; ".join(left)
        if dead := [names[rank] for rank in range(self.ranks) if before[rank] == after[rank]]:
            return "; ".join(f"{name} does not answer: it died, hangs, or its machine is gone" for name in dead)
        steps = [int(beat.partition(" ")[2]) for beat in after]
        last = max(steps)
        if behind := [f"{name} is at step {step}" for name, step in zip(names, steps, strict=True) if step < last]:
            return f"{'; '.join(behind)} while others wait at step {last}"
        return (
            "all ranks are alive and at the same step: one needs longer than training.parallel.timeout_seconds, or the "
            "connection between them broke"
        )

    def _beat(self, store: Store) -> None:
        count = 0
        while not self._over.is_set():
            try:
                store.set(f"beat/{self.rank}", f"{count} {self.at}")
            except RuntimeError:
                return  # the store has gone: nobody is left to read
            count += 1
            self._over.wait(self._pause)

    def _all(self, what: str) -> list[str]:
        keys = [f"{what}/{rank}" for rank in range(self.ranks)]
        # a key that is not there would be waited for
        return [self._store.get(key).decode() if self._store.check([key]) else "" for key in keys]


@contextmanager
def naming_who_left(roll: Roll) -> Iterator[None]:
    """Say which rank is gone where others only see a connection that broke or a wait that took too long.

    Raises:
        TrainingError: an exchange between ranks failed; names the rank and why, as far as it could tell.
    """
    try:
        yield
    except MixDPOError as error:
        roll.leave(error)
        raise
    except RuntimeError as error:
        if not _of_an_exchange(error):
            roll.leave(error)
            raise
        raise TrainingError(f"{roll.missing()}; {REMEDY}") from error
    except BaseException as error:
        roll.leave(error)
        raise


def _of_an_exchange(error: RuntimeError) -> bool:
    """Whether it comes of another rank's silence; gloo has no class of its own for that."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "pair closure" in str(error)
