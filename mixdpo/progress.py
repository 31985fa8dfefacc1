"""One progress bar for all long work: a live bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

LOG_EVERY_SECONDS = 10.0


def track(items: Iterable[T], what: str, total: int | None = None, done: int = 0) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done (`done` were finished before a resume)."""
    if total is None and isinstance(items, Sized):
        total = done + len(items)
    if sys.stderr.isatty():
        yield from _bar(items, what, total, done)
    else:
        yield from _lines(items, what, total, done)


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
