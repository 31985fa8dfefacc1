"""K experts that write: all in one batch, one after another, and one after another with `generate` of transformers.

    python benchmarks/generate.py --size small                                       a table
    python benchmarks/generate.py --size gpt2 --experts 4 --new-tokens 16 --json     one JSON line a case
    python benchmarks/generate.py --threads 1 --clock cpu                            processor time, for a busy machine

    python benchmarks/generate.py --lengths equal --rows 1           what a batch costs, without waiting for the longest
    python benchmarks/generate.py --experts 1 --samples 4 --prompt 128   several texts of a prompt

Each expert continues the same prompts, of mixed length, by sampling. The end of text is made so likely that texts are
as long as geometric draws of mean half the limit, on all sides alike; tokens are counted up to the end of each text.
With `--lengths equal` no text ends before the limit.
`generate` has its cache, prompts padded on the left, and the better of two batch sizes: all rows of an expert or half.
Sides take turns, once a round; throughputs and ratios are medians over rounds.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import click
import torch
from dpo_sides import SIZES
from generate_sides import Case, Side, Sides


def throughput(side: Side, seed: int, case: Case, clock: str) -> float:
    """Tokens a second."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    started = now()
    tokens = side(seed)
    if case.device == "cuda":
        torch.cuda.synchronize()
    return tokens / (now() - started)


def compare(case: Case, rounds: int, clock: str) -> dict[str, Any]:
    """All sides in turn; the first round warms up, and shows which batch size `generate` likes better."""
    sides = Sides(case)
    theirs = {batch: sides.by_transformers(batch) for batch in {case.rows, max(1, case.rows // 2)}}
    turns = {"ours": sides.in_one_batch, "one_after_another": sides.one_after_another}
    for side in turns.values():
        throughput(side, 0, case, clock)
    trials = {batch: [throughput(side, seed, case, clock) for seed in (0, 1)][1] for batch, side in theirs.items()}
    batch = max(trials, key=trials.__getitem__)
    turns["hf"] = theirs[batch]
    found: dict[str, list[float]] = {name: [] for name in turns}
    for seed in range(1, rounds + 1):
        for name, side in turns.items():
            found[name].append(throughput(side, 1000 * seed, case, clock))

    def ratio(other: str) -> float:
        return statistics.median(one / two for one, two in zip(found["ours"], found[other], strict=True))

    return {
        "benchmark": "generate",
        "size": case.size,
        "experts": case.experts,
        "head": case.head,
        "rows": case.rows,
        "samples": case.samples,
        "slots": case.slots or case.rows * case.samples * case.experts,
        "prompt": case.prompt,
        "new_tokens": case.new_tokens,
        "lengths": case.lengths,
        "dtype": case.dtype,
        "device": case.device,
        "threads": case.threads,
        "clock": clock,
        **{f"{name}_tokens_per_s": statistics.median(values) for name, values in found.items()},
        "hf_batch": batch,
        "ratio": ratio("one_after_another"),
        "ratio_hf": ratio("hf"),
    }


HEADER = (
    f"{'experts':>7} {'head':<8} {'rows':>5} {'one batch':>10} {'in turn':>9} {'generate':>9} {'batch':>6} "
    f"{'/ in turn':>9} {'of K':>5} {'/ generate':>10} {'of K':>5}   (tokens/s)"
)


def _line(row: dict[str, Any]) -> str:
    of_k, of_k_hf = (row[name] / row["experts"] for name in ("ratio", "ratio_hf"))
    return (
        f"{row['experts']:>7} {row['head']:<8} {row['rows']:>5} {row['ours_tokens_per_s']:>10.0f} "
        f"{row['one_after_another_tokens_per_s']:>9.0f} {row['hf_tokens_per_s']:>9.0f} {row['hf_batch']:>6} "
        f"{row['ratio']:>9.2f} {of_k:>5.2f} {row['ratio_hf']:>10.2f} {of_k_hf:>5.2f}"
    )


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
@click.option("--experts", default="1,2,4", show_default=True, help="Numbers of experts, with commas.")
@click.option("--head", default="linear,lowrank", show_default=True, help="linear, lowrank or both, with a comma.")
@click.option("--rows", default="1,4,16", show_default=True, help="Prompts that each expert continues, with commas.")
@click.option("--samples", default=1, show_default=True, help="Texts of each prompt.")
@click.option("--slots", default=0, show_default=True, help="Rows that ours writes at once; 0 takes all.")
@click.option("--prompt", default=16, show_default=True, help="Tokens of the longest prompt.")
@click.option("--new-tokens", default=48, show_default=True, help="Of each text, at most.")
@click.option("--lengths", type=click.Choice(["mixed", "equal"]), default="mixed", show_default=True)
@click.option("--dtype", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", default=0, show_default=True, help="0 takes all.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    size: str,
    experts: str,
    head: str,
    rows: str,
    samples: int,
    slots: int,
    prompt: int,
    new_tokens: int,
    lengths: str,
    dtype: str,
    device: str,
    threads: int,
    rounds: int,
    clock: str,
    as_json: bool,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    if not as_json:
        of = f"{samples} texts of {lengths} length a prompt"
        click.echo(f"size {size}, {dtype}, {device}, {torch.get_num_threads()} threads, {clock} time, {of}")
        click.echo(HEADER)
    for count in map(int, experts.split(",")):
        for kind in head.split(","):
            for each in map(int, rows.split(",")):
                texts = (each, samples, slots, prompt, new_tokens, lengths)
                row = compare(Case(size, count, kind, *texts, dtype, device, threads), rounds, clock)
                click.echo(json.dumps(row) if as_json else _line(row))


if __name__ == "__main__":
    main()
