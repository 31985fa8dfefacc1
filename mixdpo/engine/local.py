"""The engine that needs nothing: one shard after the other in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from mixdpo.engine.task import Shard, Task
from mixdpo.engine.worker import Worker
from mixdpo.errors import MixDPOError


class InProcess:
    def __init__(self) -> None:
        self._worker = Worker()

    def map(self, task: Task, shards: Sequence[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        for shard in shards:
            try:
                result = self._worker.work(task, shard.rows)
            except MixDPOError as error:
                raise shard.named(error) from error
            except Exception as error:
                error.add_note(str(shard))
                raise
            yield shard, result
