"""The engine that needs nothing: one shard after the other in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from mixdpo.engine.task import Shard, Task
from mixdpo.errors import MixDPOError


class InProcess:
    def map(self, task: Task, shards: Sequence[Shard]) -> Iterator[tuple[Shard, pa.Table]]:
        if not shards:
            return
        function = task.load()
        for shard in shards:
            try:
                result = function(shard.rows)
            except MixDPOError as error:
                raise shard.named(error) from error
            except Exception as error:
                error.add_note(str(shard))
                raise
            yield shard, result
