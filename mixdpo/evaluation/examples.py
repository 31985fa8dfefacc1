"""A few prompts with everyone's completion: figures say how much, these say what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Completion:
    author: str
    text: str
    scores: list[str]  # `dimension 0.93`, by the judges


@dataclass(frozen=True)
class Example:
    prompt: str
    domain: str
    completions: list[Completion]


def examples(samples: pa.Table, dimensions: Sequence[str], count: int) -> list[Example]:
    """The first `count` prompts of data/evaluation/samples.parquet, one completion of each expert."""
    first = samples.filter(pc.equal(samples["sample"], 0))
    chosen = list(dict.fromkeys(first["prompt_id"].to_pylist()))[:count]
    experts: dict[str, int] = {}
    for policy, expert in zip(first["policy"].to_pylist(), first["expert"].to_pylist(), strict=True):
        experts[policy] = max(experts.get(policy, 0), expert + 1)
    found = []
    for prompt_id in chosen:
        rows = first.filter(pc.equal(first["prompt_id"], prompt_id)).to_pylist()
        completions = [
            Completion(
                row["policy"] if experts[row["policy"]] == 1 else f"{row['policy']}, expert {row['expert']}",
                row["completion"] + ("" if row["finished"] else " …"),
                [f"{dimension} {row[f'judge_{dimension}']:.2f}" for dimension in dimensions],
            )
            for row in rows
        ]
        found.append(Example(rows[0]["prompt"], rows[0]["domain"], completions))
    return found
