"""Tables of any size for scaling_rows.py, written a block at a time, and the evaluation's inputs as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixdpo.data.schema import PREFERENCES, REVIEWS, SPLITS, scores_schema, split_of, text_id, write_tables
from mixdpo.layout import Layout

AT_ONCE = 20_000  # rows made together
EACH = 4  # candidates a prompt
PAIRS = 20  # of an annotator
STYLES = ("sentiment", "grammar", "informativeness")
WORDS = np.array(["".join(part) for part in product("bdfgklmnprstvz", "aeiou", ("", "l", "n", "r", "s", "t"))])

Make = Callable[[int, int, np.random.Generator], dict[str, Any]]
RAW_REVIEWS = pa.schema([("text", pa.string()), ("stars", pa.int64()), ("user", pa.string())])
RAW_PAIRS = pa.schema(
    [(name, pa.string()) for name in ("prompt", "chosen", "rejected", "annotator", "style", "domain", "split")]
)


def texts(rows: int, words: int, generator: np.random.Generator) -> list[str]:
    """Random texts of half to one and a half times so many words."""
    lengths = generator.integers(words // 2, words + words // 2, size=rows)
    drawn = WORDS[generator.integers(len(WORDS), size=lengths.sum())].tolist()
    ends = np.cumsum(lengths).tolist()
    return [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths.tolist(), strict=True)]


def _write(path: Path, rows: int, schema: pa.Schema, make: Make) -> None:
    def blocks() -> Iterator[pa.Table]:
        generator = np.random.default_rng(0)
        for start in range(0, rows, AT_ONCE):
            columns = make(start, min(AT_ONCE, rows - start), generator)
            yield pa.table({name: columns[name] for name in schema.names}, schema=schema)

    write_tables(path, blocks(), schema)


def raw_reviews(layout: Layout, rows: int) -> None:
    """One in fifty is a copy of the one before, one in fifty all but a copy."""

    def make(_: int, count: int, generator: np.random.Generator) -> dict[str, Any]:
        found = texts(count, 60, generator)
        found[1::50] = found[: len(found[1::50]) * 50 : 50]
        found[2::50] = [f"{text} again" for text in found[: len(found[2::50]) * 50 : 50]]
        users = generator.integers(max(1, rows // 10), size=count)
        return {"text": found, "stars": generator.integers(1, 6, count), "user": [f"user-{user}" for user in users]}

    _write(layout.root / "raw.parquet", rows, RAW_REVIEWS, make)


def prepared_reviews(layout: Layout, rows: int) -> None:
    """One in two hundred has stars that no review has."""

    def make(start: int, count: int, generator: np.random.Generator) -> dict[str, Any]:
        found = [f"{text} {start + place}" for place, text in enumerate(texts(count, 60, generator))]
        ids = [text_id(text) for text in found]
        stars = generator.integers(1, 6, count).astype(np.float64)
        stars[::200] = 9.0
        return {
            "review_id": ids,
            "text": found,
            "domain": ["book"] * count,
            "stars": stars,
            "label": generator.integers(2, size=count),
            "user_id": [f"user-{user}" for user in generator.integers(max(1, rows // 10), size=count)],
            "split": [split_of(each, 0.1, 0.2) for each in ids],
            "metadata": ["{}"] * count,
        }

    _write(layout.prepared_reviews, rows, REVIEWS, make)


def scores(layout: Layout, rows: int) -> None:
    def make(start: int, count: int, generator: np.random.Generator) -> dict[str, Any]:
        places = np.arange(start, start + count)
        prompts = [f"prompt {place // EACH}" for place in places]
        ids = [text_id(prompt) for prompt in prompts]
        return {
            "candidate_id": [f"candidate-{place}" for place in places],
            "prompt_id": ids,
            "prompt": prompts,
            "completion": texts(count, 20, generator),
            "finished": [True] * count,
            "domain": np.where(places // EACH % 2, "movie", "book").tolist(),
            "split": [split_of(each, 0.1, 0.2) for each in ids],
            **{name: generator.random(count) for name in STYLES},
        }

    _write(layout.validated("scores"), rows, scores_schema(STYLES), make)


def raw_preferences(layout: Layout, rows: int) -> None:
    """Pairs of annotators in turn, each with a style, in the split of its prompt."""

    def make(start: int, count: int, generator: np.random.Generator) -> dict[str, Any]:
        places = np.arange(start, start + count)
        prompts = [f"prompt {place // EACH}" for place in places]
        people = places // PAIRS
        return {
            "prompt": prompts,
            "chosen": texts(count, 20, generator),
            "rejected": texts(count, 20, generator),
            "annotator": [f"annotator-{person}" for person in people],
            "style": [STYLES[person % len(STYLES)] for person in people],
            "domain": np.where(places // EACH % 2, "movie", "book").tolist(),
            "split": [split_of(text_id(prompt), 0.1, 0.2) for prompt in prompts],
        }

    _write(layout.root / "raw.parquet", rows, RAW_PAIRS, make)


def labelled_preferences(layout: Layout, rows: int) -> None:
    def make(start: int, count: int, generator: np.random.Generator) -> dict[str, Any]:
        places = np.arange(start, start + count)
        prompts = [f"prompt {place // EACH}" for place in places]
        return {
            "pair_id": [f"pair-{place}" for place in places],
            "prompt_id": [text_id(prompt) for prompt in prompts],
            "prompt": prompts,
            "chosen": texts(count, 20, generator),
            "rejected": texts(count, 20, generator),
            "chosen_finished": [True] * count,
            "rejected_finished": [True] * count,
            "annotator": [f"annotator-{place // PAIRS}" for place in places],
            "style": [None] * count,
            "domain": ["book"] * count,
            "split": [SPLITS[place // PAIRS % 3] for place in places],
            "metadata": ["{}"] * count,
        }

    _write(layout.labelled_preferences, rows, PREFERENCES, make)


def evaluation(rows: int) -> tuple[Any, ...]:
    """What `evaluation_figures` reads: so many held-out pairs, a quarter as many prompts, sft and three policies."""
    from mixdpo.evaluation.heldout import HeldOut
    from mixdpo.evaluation.measure import Opinion
    from mixdpo.evaluation.preference import Judgement
    from mixdpo.evaluation.samples import Prompts, Samples

    generator = np.random.default_rng(0)
    prompts = max(1, rows // EACH)
    people = np.arange(rows) // PAIRS
    columns = {
        "annotator": [f"annotator-{person:09}" for person in people],
        "pair_id": [f"pair-{place:09}" for place in range(rows)],
        "style": [STYLES[person % len(STYLES)] for person in people],
        "domain": [("movie", "book")[place % 2] for place in range(rows)],
        "metadata": ["{}"] * rows,
    }
    pairs = HeldOut(columns, people.astype(np.int64), np.array([], dtype=np.int64))
    asked = Prompts([f"prompt-{place}" for place in range(prompts)], ["A film"] * prompts, ["book"] * prompts, 1)
    samples, opinions = {}, {}
    for name, experts in (("sft", 1), ("dpo", 1), ("mix", 3), ("moe", 3)):
        weights = generator.random((prompts, experts)) + 0.5
        samples[name] = Samples(
            name,
            weights / weights.sum(axis=1, keepdims=True),
            [["was slow and kind"] * prompts] * experts,
            [[True] * prompts] * experts,
            -10 * generator.random((prompts, experts, experts)) - 10,
            -10 * generator.random((prompts, experts)) - 10,
            {
                role: {style: generator.random((prompts, experts)) for style in STYLES}
                for role in ("judge", "annotator")
            },
        )
        if name != "sft":
            margins = generator.normal(size=(rows, experts))
            margins[np.arange(rows), people % experts] += 1.0
            opinions[name] = Opinion.of(Judgement(margins, np.full_like(margins, -np.log(experts)), "annotator"), pairs)
    return samples, opinions, pairs, asked
