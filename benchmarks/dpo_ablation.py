"""What each technique of a training step is worth: our step without it beside our step, in alternation.

    python benchmarks/dpo_ablation.py --experts 1                              a table
    python benchmarks/dpo_ablation.py --experts 4 --head lowrank --json        one JSON line a technique

Each side runs in a process of its own, in which one function is replaced by the plain way of doing the same.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import click
import torch
from apart import Apart
from dpo_sides import SIZES, Case, Measured
from dpo_sides import serve as serve_side
from torch import Tensor

from mixdpo import compute
from mixdpo.policy import experts, head_logps, packing
from mixdpo.policy.heads import Heads, LinearHeads, LowRankHeads
from mixdpo.policy.layout import Layout
from mixdpo.training import schedule

ALL = "all techniques"


def padding() -> None:
    packing.packs = lambda _: False


def padded_attention() -> None:
    packing._row_by_row = packing._padded_inside


def prompts_twice() -> None:
    Layout.of = classmethod(lambda cls, _, lengths: cls.apart(lengths))  # type: ignore[assignment,method-assign]


def whole_logits() -> None:
    def logps(heads: Heads, hidden: Tensor, target: Tensor, _: int) -> Tensor:
        index = target[:, None, None].expand(-1, heads.experts, 1)
        return heads(hidden).float().log_softmax(dim=-1).gather(-1, index).squeeze(-1)

    for kind in (LinearHeads, LowRankHeads):
        kind.logps = logps  # type: ignore[method-assign]


def nothing_kept() -> None:
    experts.SharedTrunk._room = lambda _, __: 0  # type: ignore[method-assign]


def all_experts_back() -> None:
    head_logps._active = lambda _: None


def plain_gelu() -> None:
    experts.fuse_activations = lambda _: None


def buffers_returned() -> None:
    compute._keep_large_buffers = lambda: None


def plain_adamw() -> None:
    usual = torch.optim.AdamW
    schedule.AdamW = lambda *given, **options: usual(*given, **options | {"fused": False})  # type: ignore[attr-defined]


# what there is instead of each
INSTEAD: dict[str, Callable[[], None]] = {
    ALL: lambda: None,
    "padded rows": padding,
    "packed rows, attention padded": padded_attention,
    "a prompt once for each row": prompts_twice,
    "whole logits": whole_logits,
    "all exponentials twice": nothing_kept,
    "backward passes without responsibility": all_experts_back,
    "GELU as eight operations": plain_gelu,
    "large buffers given back": buffers_returned,
    "AdamW in several operations": plain_adamw,
}


def serve(pipe: Connection, side: str, case: Case) -> None:
    INSTEAD[side]()
    serve_side(pipe, "ours", case)


def compare(case: Case, names: list[str]) -> list[dict[str, Any]]:
    """Processor time and peak memory without each technique over those with all, medians of all steps but the first."""
    sides = Apart(serve, (ALL, *names), case)
    measured: dict[str, list[Measured]] = {name: [] for name in (ALL, *names)}
    for step in range(case.steps):
        for name, found in measured.items():
            found.append(sides.ask(name, step))
    peaks = sides.end()
    usual = measured[ALL]
    return [
        {
            "benchmark": "dpo_ablation",
            "size": case.size,
            "experts": case.experts,
            "head": case.head,
            "responsibilities": "given" if case.routed else "posterior",
            "dtype": case.dtype,
            "instead": name,
            "s_per_step": statistics.median(one.cpu for one in found[1:]),
            "ratio": statistics.median(one.cpu / other.cpu for one, other in zip(found[1:], usual[1:], strict=True)),
            "peak_mb": peaks[name][0],
            "faults": statistics.median(one.faults for one in found[1:]),
            "loss_difference": max(abs(one.loss - other.loss) for one, other in zip(found, usual, strict=True)),
        }
        for name, found in measured.items()
    ]


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
@click.option("--experts", "count", default=1, show_default=True)
@click.option("--head", type=click.Choice(["linear", "lowrank"]), default="linear", show_default=True)
@click.option("--given", is_flag=True, help="Each pair has one expert; else q is the posterior.")
@click.option("--prompt", default=8, show_default=True, help="Tokens of a prompt, give or take a quarter.")
@click.option("--dtype", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--steps", default=6, show_default=True, help="The first is not counted.")
@click.option("--without", multiple=True, type=click.Choice(list(INSTEAD)), help="What there is instead; all if none.")
@click.option("--json", "as_json", is_flag=True)
def main(
    size: str,
    count: int,
    head: str,
    given: bool,
    prompt: int,
    dtype: str,
    steps: int,
    without: tuple[str, ...],
    as_json: bool,
) -> None:
    case = Case(size, count, head, "trainable", prompt, given, dtype, "cpu", 1, steps)
    rows = compare(case, [name for name in without or INSTEAD if name != ALL])
    if not as_json:
        click.echo(f"{'instead':<40} {'s':>7} {'ratio':>6} {'MB':>5} {'faults':>7} {'|Δloss|':>8}")
    for row in rows:
        told = f"{row['instead']:<40} {row['s_per_step']:>7.3f} {row['ratio']:>6.2f} {row['peak_mb']:>5.0f}"
        told += f" {row['faults']:>7.0f} {row['loss_difference']:>8.0e}"
        click.echo(json.dumps(row) if as_json else told)


if __name__ == "__main__":
    main()
