"""`mixdpo annotate`: every candidate scored by every annotator model → data/annotated/scores.parquet."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from mixdpo.config import Params
from mixdpo.data.schema import CANDIDATES, read_table, scores_schema, write_table, write_tables
from mixdpo.engine import FileShards, map_shards, open_engine, resumable, worker_device
from mixdpo.errors import DataError
from mixdpo.files import code_digests, digest, directory_digest
from mixdpo.layout import Layout
from mixdpo.rewards.annotation import TEXTS, Annotation

logger = logging.getLogger(__name__)

SHARD = 8192  # candidates


def run(params: Params, layout: Layout) -> list[Path]:
    """Score prompt and completion together. Ready preference data needs no scores: the table is then empty.

    Memory does not grow with the candidates, and a run that was interrupted goes on after its last finished shard.

    Raises:
        DataError: there are no candidates. ModelError: a reward model is not there or does not fit.
    """
    schema = scores_schema(tuple(params.rewards.dimensions))
    candidates = FileShards(layout.candidates, CANDIDATES, SHARD)
    if params.preferences.source.kind == "files":
        logger.warning("preferences.source names ready preferences, so no candidate is scored")
        write_table(layout.annotated_scores, [], schema)
        return [layout.annotated_scores]
    if not candidates:
        raise DataError(f"{layout.candidates} has no rows; run `mixdpo candidates` again")
    directories = {name: layout.reward_model(name, "annotator").absolute() for name in params.rewards.dimensions}
    task = Annotation(tuple(directories.items()), params.rewards.batch_tokens, worker_device(params))
    models = {name: directory_digest(directory) for name, directory in directories.items()}
    key = digest([models, task.batch_tokens, task.compute.model_dump(), code_digests("rewards")])
    texts = FileShards(layout.candidates, TEXTS, SHARD)
    with resumable(layout.work("annotate", key)) as work, open_engine(params, layout) as engine:
        scores = map_shards(engine, task, texts, work, "annotating")
        write_tables(layout.annotated_scores, _joined(candidates, scores), schema)
    return [layout.annotated_scores]


def _joined(candidates: Sequence[pa.Table], scores: Sequence[Path]) -> Iterator[pa.Table]:
    for rows, path in zip(candidates, scores, strict=True):
        columns = read_table(path)
        yield pa.table([*rows.columns, *columns.columns], [*rows.column_names, *columns.column_names])
