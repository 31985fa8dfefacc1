"""`mixdpo annotate`: every candidate scored by every annotator model → data/annotated/scores.parquet."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pyarrow as pa

from mixdpo.compute import prepare_compute
from mixdpo.config import Params
from mixdpo.data.schema import CANDIDATES, read_table, scores_schema, write_table
from mixdpo.errors import DataError
from mixdpo.files import digest, directory_digest, file_digest
from mixdpo.layout import Layout
from mixdpo.rewards.annotation import score_in_shards
from mixdpo.rewards.model import RewardModel

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> list[Path]:
    """Score prompt and completion together. Ready preference data needs no scores: the table is then empty.

    Raises:
        DataError: there are no candidates. ModelError: a reward model is not there or does not fit.
    """
    dimensions = tuple(params.rewards.dimensions)
    table = read_table(layout.candidates, CANDIDATES)
    if params.preferences.source.kind == "files":
        logger.warning("preferences.source names ready preferences, so no candidate is scored")
        write_table(layout.annotated_scores, [], scores_schema(dimensions))
        return [layout.annotated_scores]
    if not table.num_rows:
        raise DataError(f"{layout.candidates} has no rows; run `mixdpo candidates` again")
    compute = prepare_compute(params.compute)
    pairs = zip(table["prompt"].to_pylist(), table["completion"].to_pylist(), strict=True)
    texts = [prompt + completion for prompt, completion in pairs]
    candidates = file_digest(layout.candidates)
    finished = []
    for dimension in dimensions:
        directory = layout.reward_model(dimension, "annotator")
        model = RewardModel.load(directory, compute)
        key = digest([candidates, directory_digest(directory), compute.device.type, params.compute.dtype])
        work = layout.work("annotate", key)
        scores = score_in_shards(model, texts, params.rewards.batch_tokens, work, f"annotating {dimension}")
        table = table.append_column(dimension, pa.array(scores, pa.float64()))
        finished.append(work)
    write_table(layout.annotated_scores, table, scores_schema(dimensions))
    for work in finished:
        shutil.rmtree(work)
    return [layout.annotated_scores]
