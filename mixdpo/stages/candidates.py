"""`mixdpo candidates`: openings of reviews, each completed a few times by the SFT policy."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from mixdpo.candidates.completion import Completion, openings_table
from mixdpo.config import Params
from mixdpo.data.prompts import choose_prompts
from mixdpo.data.schema import CANDIDATES, REVIEWS, read_table, write_table
from mixdpo.files import write_json
from mixdpo.layout import Layout


def run(params: Params, layout: Layout) -> list[Path]:
    """Write the candidates table; ready preference data needs none, so it is then empty."""
    wanted = params.preferences.source.kind == "annotated"
    table = _complete(params, layout) if wanted else CANDIDATES.empty_table()
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
    return [layout.candidates, layout.metrics("candidates")]


def _complete(params: Params, layout: Layout) -> pa.Table:
    table = read_table(layout.validated("reviews"), REVIEWS)
    prompts = choose_prompts(table.select(["review_id", "text", "domain", "split"]).to_pylist(), params.candidates)
    task = Completion(layout.sft.absolute(), params.candidates, params.compute, params.seed)
    return task.load()(openings_table(prompts))
