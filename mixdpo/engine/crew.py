"""The engine on Ray: workers that come and go, each with one shard at a time.

Ray Data was the other way. What is wanted here is a file a shard, whoever made it and in whatever order, and a run that
goes on from the files: to Ray Data, rows are a stream (docs/decisions/0008-ray.md).
"""

from __future__ import annotations

import logging
import math
import textwrap
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from mixdpo.config.engine import RayEngine
from mixdpo.engine.cluster import connected
from mixdpo.engine.task import Shard, Task
from mixdpo.engine.worker import Worker, code_digest
from mixdpo.errors import ConfigError, EngineError, MixDPOError

logger = logging.getLogger(__name__)

LOSSES = 3  # workers that one shard may lose, or that may be lost one after the other before they had a shard
SECONDS = 30.0  # until it is looked again whether there is room for more workers

LOST = (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError)

Answer = Any  # ray.ObjectRef
Actor = Any  # a handle on a Worker


class Crew:
    """Workers live from the first shard to `close`, so a model is loaded once a worker and task."""

    def __init__(self, settings: RayEngine, sign: Path) -> None:
        """`sign`: a file to be, in the project directory; workers must see it."""
        self._settings = settings
        self._sign = sign.absolute()
        self._code = code_digest()
        self._opened = ExitStack()
        self._coming: dict[Answer, Actor] = {}
        self._idle: list[Actor] = []
        self._busy: dict[Answer, tuple[Actor, Shard]] = {}
        self._stillborn = 0

    def close(self) -> None:
        self._opened.close()

    def map(self, task: Task, shards: Sequence[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        if not shards:
            return
        self._open()
        waiting = deque(shards)
        losses: Counter[Shard] = Counter()
        try:
            while waiting or self._busy:
                self._hire(len(waiting))
                while waiting and self._idle:
                    worker, shard = self._idle.pop(), waiting.popleft()
                    self._busy[worker.work.remote(task, shard.rows)] = worker, shard
                for answer in self._answers():
                    if answer in self._coming:
                        self._welcome(answer)
                        continue
                    worker, shard = self._busy.pop(answer)
                    try:
                        result = _get(answer, shard)
                    except LOST as error:
                        _dismiss(worker)
                        losses[shard] += 1
                        _put_up_with(losses[shard], shard, error)
                        waiting.appendleft(shard)
                    else:
                        self._idle.append(worker)
                        yield shard, result
        finally:  # after an error nobody waits for these
            for worker, _ in self._busy.values():
                _dismiss(worker)
            self._busy.clear()

    def _open(self) -> None:
        if self._sign.is_file():
            return
        self._opened.enter_context(connected(self._settings))
        self._opened.callback(self._dismiss_all)
        self._sign.parent.mkdir(parents=True, exist_ok=True)
        self._opened.callback(self._sign.unlink)
        self._sign.touch()

    def _dismiss_all(self) -> None:
        for worker in (*self._coming.values(), *self._idle):
            _dismiss(worker)
        self._coming.clear()
        self._idle.clear()

    def _hire(self, waiting: int) -> None:
        """Ask for as many workers as there is work and room for; those that find no place wait for one in Ray."""
        here = len(self._coming) + len(self._idle) + len(self._busy)
        room = self._settings.workers or _room(self._settings)
        if not room and not here:
            raise ConfigError(
                f"no node of the Ray cluster has room for a worker with {_size(self._settings)} ({_cluster()}); lower "
                "them, or set engine.workers if nodes are to be added on demand"
            )
        for _ in range(min(room, waiting + len(self._busy)) - here):
            options = {"num_cpus": self._settings.cpus, "num_gpus": self._settings.gpus, "max_restarts": 0}
            worker = ray.remote(Worker).options(**options).remote()
            self._coming[worker.greet.remote(self._sign, self._code)] = worker

    def _answers(self) -> list[Answer]:
        answers, _ = ray.wait([*self._busy, *self._coming], timeout=SECONDS)
        if not answers and not self._busy:
            logger.warning(
                "no Ray worker with %s has started yet, %d are asked for (%s); waiting",
                *(_size(self._settings), len(self._coming), _cluster()),
            )
        return list(answers)

    def _welcome(self, answer: Answer) -> None:
        worker = self._coming.pop(answer)
        try:
            _get(answer)
        except LOST as error:
            _dismiss(worker)
            self._stillborn += 1
            _put_up_with(self._stillborn, "a worker that was starting", error)
        else:
            self._stillborn = 0
            self._idle.append(worker)


def _get(answer: Answer, shard: Shard | None = None) -> Any:
    """What a worker answers, or what it raised; RayError where the worker itself was lost."""
    try:
        return ray.get(answer)
    except RayTaskError as error:
        if isinstance(error.cause, MixDPOError):
            raise (shard.named(error.cause) if shard else error.cause) from None
        if shard:
            error.add_note(str(shard))
        raise


def _put_up_with(times: int, shard: Shard | str, error: RayError) -> None:
    reason = textwrap.shorten(str(error).splitlines()[-1], 300)
    if times < LOSSES:
        logger.warning("%s: the Ray worker was lost, another takes its place (%s)", shard, reason)
        return
    raise EngineError(
        f"{shard}: {times} Ray workers were lost, the last because: {reason} Mostly memory is short: raise engine.cpus "
        "so that fewer workers share a node, or take larger nodes; finished shards are kept, so run it again"
    ) from error


def _dismiss(worker: Actor) -> None:
    ray.kill(worker)


def _room(settings: RayEngine) -> int:
    """Workers that all living nodes could hold if they had nothing else to do."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": settings.cpus, "GPU": settings.gpus}
    return sum(min(math.floor(node.get(name, 0) / each) for name, each in wanted.items() if each) for node in nodes)


def _size(settings: RayEngine) -> str:
    return f"{settings.cpus} CPUs and {settings.gpus:g} GPUs"


def _cluster() -> str:
    resources = ray.cluster_resources()
    return f"the cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
