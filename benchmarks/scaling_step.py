"""`scaling.py experts` and `scaling.py tokens`: how the cost of a training step grows with K, and with its tokens.

Each case is this package's step of dpo_sides.py in a process of its own: processor time, and the peak above the process
without model, less weights, gradients and moments.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import click
from apart import alone
from dpo_sides import SIZES, Case, our_step, tokens_of
from memory import forget_peak, peak_mb, resident_mb


class Measured(NamedTuple):
    """Of one step: medians over steps after the first; `tokens` is a mean, prompts counted in both rows."""

    tokens: float
    cpu_seconds: float
    peak_mb: float


def measure(case: Case, pairs: int) -> Measured:
    """Steps of so many pairs. The process is this case's own."""
    SIZES[case.size] = case.shape._replace(pairs=pairs)
    before = resident_mb(case.device)
    side = our_step(case)
    side.step(0)
    forget_peak(case.device)
    seconds = []
    for step in range(1, case.steps):
        started = time.process_time()
        side.step(step)
        seconds.append(time.process_time() - started)
    peak = peak_mb(case.device) - before - side.state / 1e6
    return Measured(statistics.mean(tokens_of(case)[1:]), statistics.median(seconds), peak)


def numbers(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    return [int(part) for part in value.split(",")]


def step_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True),
        click.option(
            "--head", type=click.Choice(["linear", "lowrank", "models"]), default="lowrank", show_default=True
        ),
        click.option("--steps", default=5, show_default=True, help="The first is a warm-up."),
        click.option("--json", "as_json", is_flag=True, help="One JSON line a case."),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--experts", "counts", default="1,2,4,8", show_default=True, callback=numbers, help="With commas.")
@step_options
def experts(counts: list[int], size: str, head: str, steps: int, as_json: bool) -> None:
    """A step of a given number of pairs against the number of experts, whose posterior is computed."""
    pairs = SIZES[size].pairs
    _run("experts", [(_case(size, count, head, steps), pairs) for count in counts], as_json)


@click.command()
@click.option("--pairs", "counts", default="2,4,8,16,32", show_default=True, callback=numbers, help="With commas.")
@click.option("--experts", "count", default=4, show_default=True)
@step_options
def tokens(counts: list[int], count: int, size: str, head: str, steps: int, as_json: bool) -> None:
    """A step of a given number of experts against its tokens, by the number of its pairs."""
    _run("tokens", [(_case(size, count, head, steps), pairs) for pairs in counts], as_json)


def _case(size: str, experts: int, head: str, steps: int) -> Case:
    return Case(size, experts, head, "trainable", 8, False, "fp32", "cpu", 1, steps)


def _run(against: str, cases: Iterable[tuple[Case, int]], as_json: bool) -> None:
    if not as_json:
        click.echo(
            f"{'size':<6} {'head':<8} {'K':>3} {'pairs':>6} {'tokens':>7} {'seconds':>8} {'exponent':>9} {'peak MB':>8}"
        )
    last: dict[str, Any] | None = None
    for case, pairs in cases:
        row = {
            "benchmark": "scaling",
            "case": against,
            "size": case.size,
            "head": case.head,
            "experts": case.experts,
            "pairs": pairs,
            **alone(measure, case, pairs)._asdict(),
        }
        row["exponent"] = last and math.log(row["cpu_seconds"] / last["cpu_seconds"]) / math.log(
            row[against] / last[against]
        )
        last = row
        click.echo(json.dumps(row) if as_json else _line(row))


def _line(row: dict[str, Any]) -> str:
    shown = "" if row["exponent"] is None else f"{row['exponent']:.2f}"
    return (
        f"{row['size']:<6} {row['head']:<8} {row['experts']:>3} {row['pairs']:>6} {row['tokens']:>7.0f} "
        f"{row['cpu_seconds']:>8.3f} {shown:>9} {row['peak_mb']:>8.0f}"
    )
