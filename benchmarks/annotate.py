"""Scores of reviews by reward models, ours beside transformers' text-classification pipeline, in alternation.

    python benchmarks/annotate.py --size small                       a table
    python benchmarks/annotate.py --size distilbert --texts 64 --json  one JSON line a case
    python benchmarks/annotate.py --threads 1 --clock cpu            processor time, for a busy machine
    python benchmarks/annotate.py --lengths films                    reviews as long as those of films
    python benchmarks/annotate.py --file reviews.parquet             reviews of your own, a column `text`

The pipeline gets the texts as they come, with each of a few batch sizes; the ratio is to its best one. Its texts are
padded to the longest of their batch. Both sides score the same texts with the same models, and the scores are compared.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import click
import numpy as np
from annotate_sides import LENGTHS, SIZES, Case, Measured, serve, texts_of, tokenizer
from apart import Apart


def compare(case: Case, batches: list[int], rounds: int, clock: str) -> dict[str, Any]:
    """Run both sides in alternation; medians over the rounds, after one that is not counted."""
    sides = Apart(serve, ("ours", "pipeline"), case)
    runs: dict[int, list[tuple[Measured, Measured]]] = {batch: [] for batch in batches}
    for _ in range(rounds + 1):
        for batch, pairs in runs.items():
            pairs.append((sides.ask("ours", batch), sides.ask("pipeline", batch)))
    peaks = sides.end()

    def seconds(batch: int, side: int) -> list[float]:
        return [getattr(pair[side], clock) for pair in runs[batch][1:]]

    ours = statistics.median(second for batch in batches for second in seconds(batch, 0))
    theirs = {batch: statistics.median(seconds(batch, 1)) for batch in batches}
    ratios = {
        batch: statistics.median(b / a for a, b in zip(seconds(batch, 0), seconds(batch, 1), strict=True))
        for batch in batches
    }
    best = min(theirs, key=theirs.__getitem__)
    lengths = [len(row) for row in tokenizer()(texts_of(case), verbose=False)["input_ids"]]
    scored = case.texts * case.models
    return {
        "benchmark": "annotate",
        "size": case.size,
        "models": case.models,
        "dtype": case.dtype,
        "device": case.device,
        "threads": case.threads,
        "clock": clock,
        "texts": case.texts,
        "reviews": "generated" if case.file is None else case.file.name,
        "lengths": case.lengths if case.file is None else None,
        "tokens": {name: float(getattr(np, name)(lengths)) for name in ("min", "median", "mean", "max")},
        "ours_texts_per_s": scored / ours,
        "pipeline_texts_per_s": scored / theirs[best],
        "pipeline_batch_size": best,
        "ratio": ratios[best],
        "ratios": ratios,
        "ours_peak_mb": peaks["ours"],
        "pipeline_peak_mb": peaks["pipeline"],
        "score_difference": max(
            float(np.abs(a - b).max())
            for pair in (pairs[0] for pairs in runs.values())
            for a, b in zip(pair[0].scores, pair[1].scores, strict=True)
        ),
    }


def _line(row: dict[str, Any]) -> str:
    ratios = "  ".join(f"{batch}: {ratio:.2f}" for batch, ratio in row["ratios"].items())
    return (
        f"{row['size']:<10} {row['models']:>6} {row['dtype']:<5} {row['ours_texts_per_s']:>9.1f} "
        f"{row['pipeline_texts_per_s']:>9.1f} {row['pipeline_batch_size']:>6} {row['ratio']:>6.2f} "
        f"{row['ours_peak_mb']:>8.0f} {row['pipeline_peak_mb']:>8.0f} {row['score_difference']:>8.0e}  {ratios}"
    )


HEADER = (
    f"{'size':<10} {'models':>6} {'type':<5} {'ours /s':>9} {'pipe /s':>9} {'batch':>6} {'ratio':>6} {'ours MB':>8} "
    f"{'pipe MB':>8} {'|Δ|':>8}  ratio by the pipeline's batch size"
)


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
@click.option("--models", default="1,3", show_default=True, help="Numbers of reward models, with commas.")
@click.option("--dtype", default="fp32", show_default=True, help="fp32, bf16 or both, with a comma.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", default=0, show_default=True, help="0 takes all.")
@click.option("--texts", default=1000, show_default=True)
@click.option("--lengths", type=click.Choice(list(LENGTHS)), default="short", show_default=True, help="If generated.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Parquet, a column `text`.")
@click.option("--batches", default="1,8,32", show_default=True, help="The pipeline's batch sizes, with commas.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    size: str,
    models: str,
    dtype: str,
    device: str,
    threads: int,
    texts: int,
    lengths: str,
    file: Path | None,
    batches: str,
    rounds: int,
    clock: str,
    as_json: bool,
) -> None:
    if threads:
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # the tokenizers of both sides
    if not as_json:
        reviews = file.name if file else f"generated {lengths}"
        click.echo(f"{texts} {reviews} reviews, {device}, {threads or 'all'} threads, {clock} time")
        click.echo(HEADER)
    for count in map(int, models.split(",")):
        for kind in dtype.split(","):
            case = Case(size, count, kind, device, threads, texts, lengths, file)
            row = compare(case, [int(batch) for batch in batches.split(",")], rounds, clock)
            click.echo(json.dumps(row) if as_json else _line(row))


if __name__ == "__main__":
    main()
