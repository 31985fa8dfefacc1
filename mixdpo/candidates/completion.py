"""Candidates for a shard of openings: a pure function from table to table, for this process or any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from mixdpo.candidates.writer import Writer, open_writer
from mixdpo.data.prompts import Prompt
from mixdpo.data.schema import CANDIDATES, text_id
from mixdpo.errors import DataError

if TYPE_CHECKING:
    from mixdpo.config.models import Candidates, Device

OPENINGS = pa.schema(
    [
        ("place", pa.int64()),  # among all openings: what is drawn for one depends on it, not on its shard
        ("prompt", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
    ]
)


def openings_table(prompts: Sequence[Prompt]) -> pa.Table:
    """All openings in order; any slice of the table is a shard."""
    columns = {
        "place": range(len(prompts)),
        "prompt": [prompt.text for prompt in prompts],
        "domain": [prompt.domain for prompt in prompts],
        "split": [prompt.split for prompt in prompts],
    }
    return pa.table(columns, schema=OPENINGS)


@dataclass(frozen=True)
class Completion:
    """How openings are completed; `load` gives the function that does it to a shard."""

    model: Path
    settings: Candidates
    compute: Device
    seed: int

    def load(self) -> Callable[[pa.Table], pa.Table]:
        """Bring the model into memory; → a function from a shard of OPENINGS to its rows of CANDIDATES."""
        writer = open_writer(self.model, self.settings, self.compute, self.seed)
        return partial(complete, writer, self.settings.per_prompt)


def complete(writer: Writer, per_prompt: int, openings: pa.Table) -> pa.Table:
    """Rows of CANDIDATES for a shard of OPENINGS, which follow each other; a text of nothing that did not end is none.

    Raises:
        DataError: the places of the openings do not follow each other.
    """
    places, prompts = openings["place"].to_pylist(), openings["prompt"].to_pylist()
    if places != list(range(places[0], places[0] + len(places)) if places else []):
        raise DataError("the openings of a shard do not follow each other; give a slice of the table of all openings")
    asked = [prompt for prompt in prompts for _ in range(per_prompt)]
    texts, finished = writer.write(asked, places[0] * per_prompt) if asked else ([], [])
    opening = [row for row in range(len(prompts)) for _ in range(per_prompt)]
    kept = [row for row, (text, end) in enumerate(zip(texts, finished, strict=True)) if end or text.strip()]
    ids = [text_id(prompt) for prompt in prompts]
    of_kept = pa.array([opening[row] for row in kept], pa.int64())
    columns = {
        "candidate_id": [f"{ids[opening[row]][:16]}-{row % per_prompt}" for row in kept],
        "prompt_id": [ids[opening[row]] for row in kept],
        "prompt": openings["prompt"].take(of_kept),
        "completion": [texts[row] for row in kept],
        "finished": [finished[row] for row in kept],
        "domain": openings["domain"].take(of_kept),
        "split": openings["split"].take(of_kept),
    }
    return pa.table(columns, schema=CANDIDATES)
