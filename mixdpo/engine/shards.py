"""A task on the rows of a table: each shard's result is a file, so that a run goes on from what is finished."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mixdpo.data.schema import read_table
from mixdpo.engine.task import Engine, Shard, Task
from mixdpo.files import replacing
from mixdpo.progress import track


@contextmanager
def resumable(directory: Path) -> Iterator[Path]:
    """A directory for results of shards: removed after the body, which uses them, and kept where that failed."""
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def slices(table: pa.Table, size: int) -> list[pa.Table]:
    """The table in shards of `size` rows, the last of what is left; no row is copied.

    The size must not depend on who works: rows share batches within a shard, and so the last digits of their results.
    """
    return [table.slice(start, size) for start in range(0, table.num_rows, size)]


def map_shards(engine: Engine, task: Task, shards: Sequence[pa.Table], directory: Path, what: str) -> list[Path]:
    """Do `task` on each shard that `directory` has no result of.

    A result is named by a digest of its shard's rows, and the caller names `directory` by a digest of all else that it
    depends on (`Layout.work`), so whatever is found there is still true. Here alone is written, one file at a time,
    whole or not at all: workers need no access, and a killed run loses the shards that were being worked on.

    Args:
        shards: read twice, one at a time, so they may come from a file.
        what: for the progress bar and errors, as in "annotating grammar".

    Returns:
        The files of the results, in the order of the shards.

    Raises:
        MixDPOError: a shard's own error, naming it. Finished shards stay.
    """
    paths = [directory / f"{content(rows)[:32]}.parquet" for rows in shards]
    missing = {path: Shard(what, place, shards) for place, path in enumerate(paths) if not _whole(path)}
    finished = engine.map(task, list(missing.values()))
    for shard, result in track(finished, what, total=len(paths), done=len(paths) - len(missing)):
        with replacing(paths[shard.place]) as temporary:
            pq.write_table(result, temporary, compression="zstd")
    return paths


def read_shards(paths: Sequence[Path]) -> pa.Table:
    """All results in the order of `paths`; there must be one."""
    return pa.concat_tables([read_table(path) for path in paths])


def content(rows: pa.Table) -> str:
    """sha256 (hex) of columns and values, whatever table the rows are a slice of; a seventh of the cost of JSON."""
    # taken, so that no bit of a neighbouring row is left in a buffer
    own = rows.replace_schema_metadata().take(pa.array(range(rows.num_rows), pa.int64())).combine_chunks()
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, own.schema) as stream:
        stream.write_table(own)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def _whole(path: Path) -> bool:
    """A machine that lost its power may leave a file without its content."""
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True
