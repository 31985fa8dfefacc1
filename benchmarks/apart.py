"""Sides of a comparison in processes of their own, so that none sees another's allocator or memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, from a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


class Apart:
    """One process a side, each of which answers what it is asked until it is asked for None."""

    def __init__(self, serve: Callable[[Connection, str, Any], None], sides: Sequence[str], case: Any) -> None:
        context = get_context("spawn")
        self._pipes, self._children = {}, []
        for side in sides:
            here, there = context.Pipe()
            child = context.Process(target=serve, args=(there, side, case))
            child.start()
            there.close()
            self._pipes[side] = here
            self._children.append(child)

    def ask(self, side: str, what: Any) -> Any:
        self._pipes[side].send(what)
        return self._pipes[side].recv()

    def end(self) -> dict[str, Any]:
        """The last answer of each side."""
        last = {side: self.ask(side, None) for side in self._pipes}
        for child in self._children:
            child.join()
        return last
