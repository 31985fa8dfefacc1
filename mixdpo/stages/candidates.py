"""`mixdpo candidates`: openings of reviews, each completed a few times by the SFT policy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from mixdpo.candidates.completion import Completion, openings_table
from mixdpo.config import Params
from mixdpo.data.prompts import choose_prompts
from mixdpo.data.schema import CANDIDATES, REVIEWS, stream_rows, write_table
from mixdpo.engine import map_shards, open_engine, read_shards, resumable, slices, worker_device
from mixdpo.files import code_digests, digest, directory_digest, write_json
from mixdpo.layout import Layout

SHARD = 1024  # openings


def run(params: Params, layout: Layout) -> list[Path]:
    """Write the candidates table; ready preference data needs none, so it is then empty."""
    if params.preferences.source.kind == "annotated":
        _complete(params, layout)
    else:
        _write(CANDIDATES.empty_table(), layout)
    return [layout.candidates, layout.metrics("candidates")]


def _complete(params: Params, layout: Layout) -> None:
    reviews = stream_rows(layout.validated("reviews"), REVIEWS, ["review_id", "text", "domain", "split"])
    prompts = choose_prompts(reviews, params.candidates)
    task = Completion(layout.sft.absolute(), params.candidates, worker_device(params), params.seed)
    settings = [params.candidates.model_dump(), task.compute.model_dump(), task.seed]
    key = digest([settings, directory_digest(layout.sft), code_digests("candidates", "policy")])
    with resumable(layout.work("candidates", key)) as work, open_engine(params, layout) as engine:
        paths = map_shards(engine, task, slices(openings_table(prompts), SHARD), work, "writing candidates")
        _write(read_shards(paths), layout)


def _write(table: pa.Table, layout: Layout) -> None:
    write_table(layout.candidates, table, CANDIDATES)
    finished = table["finished"].to_pylist()
    write_json(
        layout.metrics("candidates"),
        {
            "schema": 1,
            "prompts": len(table["prompt_id"].unique()),
            "candidates": table.num_rows,
            "different": table.group_by(["prompt_id", "completion"]).aggregate([]).num_rows,
            "finished_fraction": sum(finished) / len(finished) if finished else None,
        },
    )
