"""What an engine is given: a task, which says how to work, and shards, which are what to work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from mixdpo.errors import MixDPOError

Function = Callable[[pa.Table], pa.Table]


class Task(Protocol):
    """Paths and settings: a frozen dataclass, cheap to send to any worker, equal where the work is the same.

    Paths are absolute, for a worker has another current directory. What `load` returns depends on nothing but the
    task, and its results on nothing but the rows: neither on which shards came before nor on who works.
    """

    def load(self) -> Function:
        """Bring the models into memory; a worker does so once, however many shards it is given."""
        ...


@dataclass(frozen=True, eq=False)
class Shard:
    """Some rows of a table, read when they are wanted."""

    what: str
    place: int
    all: Sequence[pa.Table]

    @property
    def rows(self) -> pa.Table:
        return self.all[self.place]

    def __str__(self) -> str:
        return f"{self.what}, shard {self.place + 1} of {len(self.all)}"

    def named(self, error: MixDPOError) -> MixDPOError:
        """The same error, with the name of the shard before it."""
        return type(error)(f"{self}: {error}")


class Engine(Protocol):
    """Does a task on shards."""

    def map(self, task: Task, shards: Sequence[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        """Yield each shard with its result as soon as it is done, in any order.

        Raises:
            MixDPOError: what the task said, naming the shard. EngineError: workers were lost again and again.
        """
        ...
