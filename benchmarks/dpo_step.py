"""One training step, ours beside TRL's DPOTrainer: the same model, pairs and optimiser, steps in alternation.

    python benchmarks/dpo_step.py --size small                            a table
    python benchmarks/dpo_step.py --size gpt2 --experts 1,4 --json        one JSON line a case
    python benchmarks/dpo_step.py --threads 1 --clock cpu                 processor time, for a busy machine

TRL trains its single policy in every case; ours trains K experts. Reference log-probs are computed before, on both
sides; gradient checkpointing is off. With K > 1 there are two cases: responsibilities as they come ("posterior": random
pairs, so no expert can be left out) and as they are once experts have specialised ("given": each pair has one expert).
The floor is the arithmetic of one policy's step over the best rate of a matrix product of its shapes.
"""

from __future__ import annotations

import json
import statistics
import time
from multiprocessing import get_context
from typing import Any

import click
import torch
from dpo_sides import SIZES, Case, Measured, batches_of, pairs_of, serve, tokens_of


def floor_seconds(case: Case, clock: str) -> float:
    """Products of one policy's step, without padding, at the best rate that one of them reaches; median of batches."""
    size, pairs = case.shape, pairs_of(case)
    flops = []
    for places in batches_of(case, pairs):
        rows = pairs.rows(places)
        linear = 12 * size.width**2 * size.layers * sum(map(len, rows))
        attention = size.width * size.layers * sum(len(row) ** 2 for row in rows)
        head = size.width * size.vocabulary * sum(len(row.completion) for row in rows)
        flops.append(3 * 2 * (linear + attention + head))  # forward, gradient of inputs, gradient of weights
    tokens = round(statistics.mean(tokens_of(case)))
    shapes = [(tokens, size.width, 4 * size.width), (tokens, 4 * size.width, size.width), (tokens, size.width, 4096)]
    return statistics.median(flops) / max(_rate(case, *shape, clock) for shape in shapes)


def _rate(case: Case, rows: int, inner: int, columns: int, clock: str) -> float:
    """Floating-point operations a second of one product."""
    dtype = torch.bfloat16 if case.dtype == "bf16" else torch.float32
    left, right = (torch.randn(shape, device=case.device).to(dtype) for shape in ((rows, inner), (columns, inner)))
    now = time.process_time if clock == "cpu" else time.perf_counter
    seconds = []
    for _ in range(10):
        started = now()
        for _ in range(4):
            left @ right.T
        if case.device == "cuda":
            torch.cuda.synchronize()
        seconds.append((now() - started) / 4)
    return 2 * rows * inner * columns / min(seconds)


def compare(case: Case, clock: str) -> dict[str, Any]:
    """Run both sides in alternation; medians of all steps but the first."""
    context = get_context("spawn")
    pipes, children = {}, []
    for side in ("ours", "trl"):
        here, there = context.Pipe()
        child = context.Process(target=serve, args=(there, side, case))
        child.start()
        there.close()
        pipes[side] = here
        children.append(child)
    measured: dict[str, list[Measured]] = {side: [] for side in pipes}
    for step in range(case.steps):
        for side, pipe in pipes.items():
            pipe.send(step)
            measured[side].append(pipe.recv())
    peaks = {}
    for side, pipe in pipes.items():
        pipe.send(None)
        peaks[side] = pipe.recv()
    for child in children:
        child.join()
    ours, theirs = ([getattr(one, clock) for one in measured[side][1:]] for side in ("ours", "trl"))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    tokens = statistics.mean(tokens_of(case)[1:])
    differences = [abs(a.loss - b.loss) for a, b in zip(measured["ours"], measured["trl"], strict=True)]
    return {
        "benchmark": "dpo_step",
        "size": case.size,
        "experts": case.experts,
        "head": case.head,
        "trunk": case.trunk,
        "prompt": case.prompt,
        "responsibilities": "given" if case.routed else "posterior",
        "dtype": case.dtype,
        "device": case.device,
        "threads": case.threads,
        "clock": clock,
        "ours_s_per_step": statistics.median(ours),
        "trl_s_per_step": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "floor_s_per_step": floor_seconds(case, clock),
        "ours_tokens_per_s": tokens / statistics.mean(ours),
        "trl_tokens_per_s": tokens / statistics.mean(theirs),
        "ours_peak_mb": peaks["ours"][0],
        "ours_estimate_mb": peaks["ours"][1],
        "trl_peak_mb": peaks["trl"][0],
        "ours_faults": statistics.median(one.faults for one in measured["ours"][1:]),
        "trl_faults": statistics.median(one.faults for one in measured["trl"][1:]),
        # one full expert is what TRL trains: the losses stay equal from step to step
        "loss_difference": max(differences) if case.same_model else None,
    }


HEADER = (
    f"{'experts':>7} {'head':<8} {'q':<10} {'ours s':>8} {'TRL s':>8} {'ratio':>6} {'× floor':>8} {'tokens/s':>9} "
    f"{'ours MB':>8} {'expected':>8} {'TRL MB':>8} {'faults':>8} {'TRL':>8} {'|Δloss|':>8}"
)


def _line(row: dict[str, Any]) -> str:
    apart = "" if row["loss_difference"] is None else f"{row['loss_difference']:.0e}"
    return (
        f"{row['experts']:>7} {row['head']:<8} {row['responsibilities']:<10} {row['ours_s_per_step']:>8.3f} "
        f"{row['trl_s_per_step']:>8.3f} {row['ratio']:>6.2f} {row['ours_s_per_step'] / row['floor_s_per_step']:>8.1f} "
        f"{row['ours_tokens_per_s']:>9.0f} {row['ours_peak_mb']:>8.0f} {row['ours_estimate_mb']:>8.0f} "
        f"{row['trl_peak_mb']:>8.0f} {row['ours_faults']:>8.0f} {row['trl_faults']:>8.0f} {apart:>8}"
    )


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
@click.option("--experts", default="1,4", show_default=True, help="Numbers of experts, with commas.")
@click.option("--head", default="linear,lowrank", show_default=True, help="linear, lowrank or both, with a comma.")
@click.option("--trunk", type=click.Choice(["trainable", "frozen"]), default="trainable", show_default=True)
@click.option("--prompt", default=8, show_default=True, help="Tokens of a prompt, give or take a quarter.")
@click.option("--dtype", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", default=0, show_default=True, help="0 takes all.")
@click.option("--steps", default=6, show_default=True, help="The first is not counted.")
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    size: str,
    experts: str,
    head: str,
    trunk: str,
    prompt: int,
    dtype: str,
    device: str,
    threads: int,
    steps: int,
    clock: str,
    as_json: bool,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    if not as_json:
        kind = f"size {size}, {dtype}, {trunk} trunk, prompts of {prompt} tokens, {device}"
        click.echo(f"{kind}, {torch.get_num_threads()} threads, {clock} time")
        click.echo(HEADER)
    for count in map(int, experts.split(",")):
        for kind in head.split(","):
            for routed in (False, True) if count > 1 else (False,):
                row = compare(Case(size, count, kind, trunk, prompt, routed, dtype, device, threads, steps), clock)
                click.echo(json.dumps(row) if as_json else _line(row))


if __name__ == "__main__":
    main()
