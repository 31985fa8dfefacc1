"""`mixdpo candidates`: openings of reviews, each completed a few times by the SFT policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixdpo.compute import prepare_compute
from mixdpo.config import Params
from mixdpo.data.prompts import choose_prompts
from mixdpo.data.schema import CANDIDATES, REVIEWS, read_table, text_id, write_table
from mixdpo.files import write_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy


def run(params: Params, layout: Layout) -> list[Path]:
    """Write the candidates table; ready preference data needs none, so it is then empty."""
    rows = _sample(params, layout) if params.preferences.source.kind == "annotated" else []
    write_table(layout.candidates, rows, CANDIDATES)
    finished = sum(row["finished"] for row in rows)
    prompts = len({row["prompt_id"] for row in rows})
    write_json(
        layout.metrics("candidates"),
        {
            "schema": 1,
            "prompts": prompts,
            "candidates": len(rows),
            "different": len({(row["prompt_id"], row["completion"]) for row in rows}),
            "finished_fraction": finished / len(rows) if rows else None,
        },
    )
    return [layout.candidates, layout.metrics("candidates")]


def _sample(params: Params, layout: Layout) -> list[dict[str, Any]]:
    settings = params.candidates
    compute = prepare_compute(params.compute)
    table = read_table(layout.validated("reviews"), REVIEWS)
    prompts = choose_prompts(table.select(["review_id", "text", "domain", "split"]).to_pylist(), settings)
    policy = MixturePolicy.from_causal_lm(layout.sft).to(compute.device)
    policy.precision = compute.precision
    asked = [prompt for prompt in prompts for _ in range(settings.per_prompt)]
    written = policy.generate(
        [prompt.text for prompt in asked],
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=params.seed,
        batch=settings.batch,
    )
    rows = []
    for place, (prompt, completion, finished) in enumerate(zip(asked, written.texts, written.finished, strict=True)):
        if not completion.strip() and not finished:
            continue
        prompt_id = text_id(prompt.text)
        rows.append(
            {
                "candidate_id": f"{prompt_id[:16]}-{place % settings.per_prompt}",
                "prompt_id": prompt_id,
                "prompt": prompt.text,
                "completion": completion,
                "finished": finished,
                "domain": prompt.domain,
                "split": prompt.split,
            }
        )
    return rows
