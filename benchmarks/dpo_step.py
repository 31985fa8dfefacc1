"""One training step, ours beside TRL's DPOTrainer: the same model, pairs and optimiser, steps in alternation.

    python benchmarks/dpo_step.py --size small                            a table
    python benchmarks/dpo_step.py --size gpt2 --experts 1,4 --json        one JSON line a case
    python benchmarks/dpo_step.py --threads 1 --clock cpu                 processor time, for a busy machine

TRL trains its single policy in every case; ours trains K experts. Reference log-probs are computed before, on both
sides; gradient checkpointing is off. With K > 1 there are two cases: responsibilities as they come ("posterior": random
pairs, so no expert can be left out) and as they are once experts have specialised ("given": each pair has one expert).
Heads may be `models`: K whole models, to be compared with K trainings by TRL ("a policy": our time over K of its
steps). The floor is the arithmetic of one policy's step over the best rate of a matrix product of its shapes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import torch
from apart import Apart
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
    sides = Apart(serve, ("ours", "trl"), case)
    measured: dict[str, list[Measured]] = {"ours": [], "trl": []}
    for step in range(case.steps):
        for side, found in measured.items():
            found.append(sides.ask(side, step))
    peaks = sides.end()
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
        "ratio_a_policy": statistics.median(ratios) / case.experts,
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


# title, format and value of each column
COLUMNS: list[tuple[str, str, Callable[[dict[str, Any]], Any]]] = [
    ("experts", ">7", lambda row: row["experts"]),
    ("head    ", "<8", lambda row: row["head"]),
    ("q        ", "<9", lambda row: row["responsibilities"]),
    ("ours s", ">7.3f", lambda row: row["ours_s_per_step"]),
    ("TRL s", ">7.3f", lambda row: row["trl_s_per_step"]),
    ("ratio", ">5.2f", lambda row: row["ratio"]),
    ("a policy", ">8.2f", lambda row: row["ratio_a_policy"]),
    ("× floor", ">7.1f", lambda row: row["ours_s_per_step"] / row["floor_s_per_step"]),
    ("tokens/s", ">8.0f", lambda row: row["ours_tokens_per_s"]),
    ("ours MB", ">7.0f", lambda row: row["ours_peak_mb"]),
    ("expected", ">8.0f", lambda row: row["ours_estimate_mb"]),
    ("TRL MB", ">6.0f", lambda row: row["trl_peak_mb"]),
    ("faults", ">6.0f", lambda row: row["ours_faults"]),
    ("TRL", ">7.0f", lambda row: row["trl_faults"]),
    ("|Δloss|", ">7", lambda row: "" if row["loss_difference"] is None else f"{row['loss_difference']:.0e}"),
]


def _width(form: str) -> int:
    return int(form[1:].partition(".")[0])


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
@click.option("--experts", default="1,4", show_default=True, help="Numbers of experts, with commas.")
@click.option("--head", default="linear,lowrank", show_default=True, help="linear, lowrank, models, with commas.")
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
        click.echo(" ".join(f"{title:>{_width(form)}}" for title, form, _ in COLUMNS))
    for count in map(int, experts.split(",")):
        for kind in head.split(","):
            for routed in (False, True) if count > 1 else (False,):
                row = compare(Case(size, count, kind, trunk, prompt, routed, dtype, device, threads, steps), clock)
                click.echo(json.dumps(row) if as_json else " ".join(f"{of(row):{form}}" for _, form, of in COLUMNS))


if __name__ == "__main__":
    main()
