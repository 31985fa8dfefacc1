"""Starts the ranks of one machine: torchrun's agent as a library, with ranks forked from one warm process.

A process takes seconds to import what a rank needs; a server that has done so once forks all of them, and forks them
again when they are restarted. What several machines need is torchrun itself (docs/scaling.md).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mixdpo import errors
from mixdpo.errors import MixDPOError, TrainingError
from mixdpo.parent import end_with
from mixdpo.training.parallel.roll import REMEDY

T = TypeVar("T")

# seconds in which ranks that are asked to end may do so
GRACE = 5
AGENTS = ("torch.distributed.elastic", "torch.multiprocessing", "torchelastic-events-null")


def launch(
    work: Callable[..., T], arguments: tuple[Any, ...], ranks: int, restarts: int = 0, preload: str | None = None
) -> list[T]:
    """Run `work(*arguments)` in so many processes that can meet (`joining.joined`); what each returned, by rank.

    Args:
        work: a function of a module, as it has to be named to another process.
        restarts: how often all are started again after one was lost.
        preload: module that holds what the ranks import, loaded once.

    Raises:
        MixDPOError: a rank failed; of the same class where it failed with such an error itself.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([preload or work.__module__])
    with tempfile.TemporaryDirectory() as logs, _told_by_us():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id="mixdpo",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",
            max_restarts=restarts,
            start_method="forkserver",
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            shutdown_timeout=GRACE,
        )
        try:
            results: dict[int, T] = elastic_launch(config, _run_rank)(os.getpid(), work, *arguments)
        except ChildFailedError as error:
            _blame(*error.get_first_failure(), ranks)
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None
    return [results[rank] for rank in range(ranks)]


def _run_rank(launcher: int, work: Callable[..., T], *arguments: Any) -> T:
    """In a rank: do not outlive the agent, which cannot end its ranks where it is killed itself."""
    end_with((launcher,))
    return work(*arguments)


def _blame(rank: int, failure: ProcessFailure, ranks: int) -> NoReturn:
    """Raise what the first rank that failed says, or how it ended."""
    who = f"rank {rank} of {ranks} (process {failure.pid})"
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        raise TrainingError(f"{who} was ended by {name}; {REMEDY}, unless it had too little memory")
    if isinstance(failure.message, str):
        raise TrainingError(f"{who} ended with exit code {failure.exitcode}; {REMEDY}")
    kind, _, text = failure.message["message"].partition(": ")
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, MixDPOError):
        raise known(text)
    raise TrainingError(f"{who} failed with {kind}: {text}\n{failure.message['extraInfo']['py_callstack']}")


@contextmanager
def _told_by_us() -> Iterator[None]:
    """The agent logs what `launch` raises, and leaves its signal handlers behind."""
    loggers = [logging.getLogger(name) for name in AGENTS]
    levels = [logger.level for logger in loggers]
    main = threading.current_thread() is threading.main_thread()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for each, handler in handlers.items() if main else ():
            signal.signal(each, handler)
