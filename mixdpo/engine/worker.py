"""A worker keeps the models of one task and is given one shard at a time: on Ray an actor, else in the stage itself."""

from __future__ import annotations

import socket
from pathlib import Path

import pyarrow as pa

import mixdpo
from mixdpo.engine.task import Function, Task
from mixdpo.errors import ConfigError
from mixdpo.files import directory_digest


def code_digest() -> str:
    """Of this package as it is installed where this runs."""
    return directory_digest(Path(mixdpo.__file__).parent, "*.py")


class Worker:
    def __init__(self) -> None:
        self._task: Task | None = None
        self._function: Function | None = None

    def greet(self, sign: Path, code: str) -> None:
        """Make sure that this is the same code, and the same project directory, as the stage's.

        Args:
            sign: a file that the stage has just made in the project directory.
            code: the stage's `code_digest`.

        Raises:
            ConfigError: one of them differs here.
        """
        host = socket.gethostname()
        if not sign.is_file():
            raise ConfigError(
                f"the Ray worker on {host} does not see {sign.parent}, where the stage works; mount the project "
                "directory at the same path on every node (docs/ray.md)"
            )
        if code_digest() != code:
            raise ConfigError(
                f"the Ray worker on {host} has another mixdpo ({Path(mixdpo.__file__).parent}) than the stage; "
                "install the same one on every node (docs/ray.md)"
            )

    def work(self, task: Task, rows: pa.Table) -> pa.Table:
        if self._function is None or task != self._task:
            self._task, self._function = None, None  # the old models go before the new ones come
            self._function, self._task = task.load(), task
        return self._function(rows)
