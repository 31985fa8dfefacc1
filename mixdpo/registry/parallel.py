"""Many small waits at once: requests to a store, files copied side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS = 8


def in_parallel(do: Callable[[T], R], items: Iterable[T], workers: int = WORKERS) -> list[R]:
    """`do` of each item, in the order of the items. After the first error nothing more is begun, and it is raised."""
    todo = list(items)
    if len(todo) < 2:
        return [do(item) for item in todo]
    with ThreadPoolExecutor(min(workers, len(todo))) as pool:
        futures = [pool.submit(do, item) for item in todo]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also where the wait itself was interrupted
            pool.shutdown(wait=True, cancel_futures=True)
        failed = [future for future in futures if not future.cancelled() and future.exception()]
        return [future.result() for future in failed or futures]
