"""One progress bar for all long work: a live bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

LOG_EVERY_SECONDS = 10.0


def track(items: Iterable[T], what: str, total: int | None = None, done: int = 0, shown: bool = True) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done (`done` were finished before a resume).

    Args:
        shown: not where another process shows the same.
    """
    if total is None and isinstance(items, Sized):
        total = done + len(items)
    if not shown:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, what, total, done)
    else:
        yield from _lines(items, what, total, done)


@contextmanager
def measure(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told, from any thread, of each number of bytes that were moved, of `total` bytes."""
    if sys.stderr.isatty():
        with _byte_bar(what, total) as moved:
            yield moved
    else:
        yield _byte_lines(what, total)


@contextmanager
def _byte_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def _byte_lines(what: str, total: int) -> Callable[[int], None]:
    started = shown = time.monotonic()
    done, lock = 0, threading.Lock()

    def moved(count: int) -> None:
        nonlocal done, shown
        with lock:
            done += count
            now = time.monotonic()
            if done and now - shown >= LOG_EVERY_SECONDS:
                shown = now
                left = (now - started) / done * max(0, total - done)
                mebibytes = f"{done / 2**20:.0f}/{total / 2**20:.0f} MiB"
                print(f"{what}: {mebibytes}, about {left:.0f} s left", file=sys.stderr, flush=True)

    return moved


def _bar(items: Iterable[T], what: str, total: int | None, done: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[T], what: str, total: int | None, done: int) -> Iterator[T]:
    started = shown = time.monotonic()
    count = done
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - shown >= LOG_EVERY_SECONDS:
            shown = now
            left = f"/{total}, about {(now - started) / (count - done) * (total - count):.0f} s left" if total else ""
            print(f"{what}: {count}{left}", file=sys.stderr, flush=True)
