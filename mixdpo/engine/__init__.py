"""Work on many rows, shard by shard: here or on a Ray cluster, resumed where it stopped, with the same result."""

from mixdpo.engine.file_shards import FileShards
from mixdpo.engine.opening import open_engine, worker_device
from mixdpo.engine.shards import map_shards, read_shards, resumable, slices
from mixdpo.engine.task import Engine, Function, Shard, Task

__all__ = [
    "Engine",
    "FileShards",
    "Function",
    "Shard",
    "Task",
    "map_shards",
    "open_engine",
    "read_shards",
    "resumable",
    "slices",
    "worker_device",
]
