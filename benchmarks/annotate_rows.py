"""The stage `annotate` against its rows: what a row costs, and whether memory stays flat.

    python benchmarks/annotate_rows.py --rows 8192,65536            a table
    python benchmarks/annotate_rows.py --rows 8192,65536 --json     one JSON line a case

Three small reward models score generated candidates as the stage does it, from file to file. Each case has a process of
its own; the first shard and the models are there before counting begins, so that the peak is that of more rows.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
from memory import forget_peak, peak_mb, resident_mb
from transformers.utils.logging import disable_progress_bar

from mixdpo.config import load_params
from mixdpo.data.embedded import generate_reviews
from mixdpo.data.schema import CANDIDATES, text_id, write_tables
from mixdpo.layout import Layout
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.model import RewardModel
from mixdpo.rewards.tokenizer import train_phrase_tokenizer
from mixdpo.stages.annotate import SHARD, run

DEMO = load_params(Path(__file__).parents[1] / "profiles" / "demo.yaml")


def measure(rows: int) -> dict[str, Any]:
    """One case, in this process."""
    disable_progress_bar()
    params = DEMO.model_copy(update={"compute": DEMO.compute.model_copy(update={"device": "cpu", "threads": 1})})
    with tempfile.TemporaryDirectory() as temporary:
        first, layout = Layout(Path(temporary, "first")), Layout(Path(temporary, "all"))
        for place, count in ((first, SHARD), (layout, rows)):
            models(place)
            write_tables(place.candidates, candidates(count), CANDIDATES)
        run(params, first)
        forget_peak("cpu")
        held, started = resident_mb("cpu"), time.process_time()
        run(params, layout)
        seconds = time.process_time() - started
        size = layout.candidates.stat().st_size / 1e6
    return {
        "benchmark": "annotate_rows",
        "rows": rows,
        "shards": -(-rows // SHARD),
        "file_mb": size,
        "cpu_s": seconds,
        "cpu_ms_per_row": 1e3 * seconds / rows,
        "peak_mb": peak_mb("cpu") - held,
    }


def models(layout: Layout) -> None:
    """One small annotator a dimension, with random weights."""
    reviews = [review["text"] for review in generate_reviews(300, 50, seed=0)]
    settings = DEMO.rewards.training.model_copy(update={"layers": 1, "width": 16, "vocabulary": 1000})
    tokenizer = train_phrase_tokenizer(reviews, settings.vocabulary, settings.max_tokens)
    for seed, name in enumerate(DEMO.rewards.dimensions):
        model = RewardModel(new_classifier(settings, tokenizer, name, seed), tokenizer, 1, 1.0)
        model.save(layout.reward_model(name, "annotator"), {})


def candidates(rows: int) -> Iterator[pa.Table]:
    """Different texts, a shard at a time."""
    words = " ".join(review["text"] for review in generate_reviews(300, 50, seed=1)).split()
    for start in range(0, rows, SHARD):
        places = range(start, min(start + SHARD, rows))
        opening = [" ".join(words[place % 997 : place % 997 + 4]) for place in places]
        columns = {
            "candidate_id": [f"c{place}" for place in places],
            "prompt_id": [text_id(text) for text in opening],
            "prompt": opening,
            "completion": [
                f" {place} " + " ".join(words[place % 1009 : place % 1009 + place % 24]) for place in places
            ],
            "finished": [True] * len(places),
            "domain": ["movie"] * len(places),
            "split": ["train"] * len(places),
        }
        yield pa.table(columns, schema=CANDIDATES)


@click.command()
@click.option("--rows", default=f"{SHARD},{8 * SHARD}", show_default=True, help="With commas.")
@click.option("--json", "as_json", is_flag=True)
def main(rows: str, as_json: bool) -> None:
    if not as_json:
        click.echo(f"{'rows':>9} {'shards':>7} {'file MB':>8} {'cpu s':>8} {'ms a row':>9} {'peak MB':>8}")
    for count in map(int, rows.split(",")):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            row = apart.submit(measure, count).result()
        line = "{rows:>9} {shards:>7} {file_mb:>8.1f} {cpu_s:>8.1f} {cpu_ms_per_row:>9.2f} {peak_mb:>8.0f}"
        click.echo(json.dumps(row) if as_json else line.format(**row))


if __name__ == "__main__":
    main()
