"""A step on several ranks: processor time of each beside one expert's step alone, and what the ranks send each other.

    python benchmarks/scaling_ranks.py
    python benchmarks/scaling_ranks.py --cases expert,data --size tiny --json

Steps of one expert by one process alternate with steps of the grid in the same processes, so a busy machine slows both
alike. Bytes are those that a process gives to the kernel, beside what docs/scaling.md expects of gloo.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import click
import torch
import torch.distributed as dist
from dpo_sides import SIZES, Case, new_model, pairs_of

from mixdpo.config.policy import Policy
from mixdpo.config.training import Parallel, Training
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import new_experts
from mixdpo.policy.weighting import PriorWeights
from mixdpo.training.mixture import Mixture
from mixdpo.training.parallel import ALONE, Ranks, SpreadExperts, joined
from mixdpo.training.parallel.launch import launch
from mixdpo.training.parallel.passes import Division
from mixdpo.training.parallel.shares import pair_cost, share_out
from mixdpo.training.run import Run, Setup

WHOLE = {"kind": "independent"}
HEADS = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}
NUMBER = 4  # bytes


class Layout(NamedTuple):
    """A grid, and the experts on it."""

    data: int
    experts: int
    shard: bool
    policy_experts: int
    architecture: dict[str, Any]


LAYOUTS = {
    "expert": Layout(1, 4, False, 4, WHOLE),
    "data": Layout(4, 1, False, 1, WHOLE),
    "sharded": Layout(4, 1, True, 1, WHOLE),
    "both": Layout(2, 2, False, 2, WHOLE),
    "heads": Layout(1, 4, False, 4, HEADS),
}


class Measured(NamedTuple):
    """Of one rank: medians over steps.

    Attributes:
        alone, together: processor seconds of a step.
        sent: bytes of a step over ranks.
        expected: the same by formula; None where that is another rank's to say.
        held: parameters that learn, on this rank.
    """

    alone: float
    together: float
    sent: float
    expected: float
    held: int


def measure(name: str, case: Case) -> Measured:
    """What one rank of a layout does."""
    torch.set_num_threads(case.threads)
    layout = LAYOUTS[name]
    parallel = Parallel(data=layout.data, experts=layout.experts, shard=layout.shard)
    with joined(parallel, layout.policy_experts, torch.device("cpu")) as ranks:
        alone = _run(case, ALONE, None, 1, WHOLE)
        together = _run(case, ranks, parallel, layout.policy_experts, layout.architecture)
        seconds: dict[Run, list[float]] = {alone: [], together: []}
        sent = []
        for step in range(case.steps):
            for run, found in seconds.items():
                dist.barrier()
                before, started = _sent(), process_time()
                run.step(step)
                found.append(process_time() - started)
                if run is together:
                    sent.append(_sent() - before)
        expected = statistics.mean(_expected(together, step) for step in range(1, case.steps))
        own = together.mixture.experts
        held = sum(each.to_local().numel() if hasattr(each, "to_local") else each.numel() for each in own.parameters())
        medians = (statistics.median(found[1:]) for found in seconds.values())
        return Measured(*medians, statistics.mean(sent[1:]), expected, held)


def _run(case: Case, ranks: Ranks, parallel: Parallel | None, experts: int, architecture: dict[str, Any]) -> Run:
    policy = Policy.model_validate(
        {
            "experts": experts,
            "architecture": architecture,
            "weights": {"kind": "fixed", "values": None},
            "latent": "annotator",
            "symmetry": {"kind": "noise", "scale": 0.02} if experts > 1 else {"kind": "none"},
        }
    )
    settings = Training(
        beta=0.1,
        epochs=1,
        batch_pairs=case.shape.pairs,
        learning_rate=1e-5,
        warmup=0.0,
        weight_decay=0.0,
        clip=1.0,
        tempering={"start": 1.0, "steps": 0},
        tile_tokens=4096,
        max_tokens=case.longest,
        evaluate_every=1000,
        checkpoint_every=1000,
        parallel=parallel,
    )
    pairs = pairs_of(case)
    made = new_experts(new_model(case), experts, architecture, torch.Generator().manual_seed(0))
    mixture = Mixture(made, PriorWeights.uniform(experts), Likelihood.of(policy, settings))
    return Run(mixture, pairs, pairs, Setup(settings, policy, 0, ranks.device, ranks=ranks), None)


def _expected(run: Run, step: int) -> float:
    """Bytes that a rank sends at a step on average, by the formulas of docs/scaling.md with what gloo does."""
    experts, ranks = run.mixture.experts, run.setup.ranks
    assert isinstance(experts, SpreadExperts)
    places, size, data = run.batches[step], ranks.size, ranks.data
    own = list(experts.own.parameters())
    trunk = {id(each) for member, _ in experts.own.models() for each in member.trunk.parameters()}
    heads = sum(each.numel() + 1 for each in own if id(each) not in trunk)
    bodies = sum(each.numel() + 1 for each in own if id(each) in trunk)
    division = -(-len(places) // data)  # pairs are of like length: shares differ by one at most
    numbers = (size - 1) * 2 * division * max(map(len, experts.spans))  # log-probs
    numbers += (size - 1) / size * 3 * len(places) * experts.experts  # responsibilities, each pair its own annotator
    numbers += 2 * (size - 1) / size * 2  # the norm, a double
    numbers += 2 * (data - 1) / data * heads
    if not ranks.shard:
        sharers = size if experts.shared else data
        return NUMBER * (numbers + 2 * (sharers - 1) / sharers * bodies + _states(run, places))
    # gathered on the way there and back; gloo's reduce-scatter sends what an all-reduce does
    return NUMBER * (numbers + (2 + 2) * (size - 1) / size * bodies)


def _states(run: Run, places: list[int]) -> float:
    """Numbers of a shared trunk's states and of their gradients."""
    experts, rows, pairs = run.mixture.experts, run.setup.ranks.experts, run.train
    if not experts.shared or rows == 1:
        return 0.0
    ran = Division(experts, pairs, places).run
    shares = share_out([pair_cost(pairs.chosen[place], pairs.rejected[place]) for place in ran], rows)
    longest = max(sum(len(row.completion) for row in pairs.rows([ran[place] for place in share])) for share in shares)
    width = run.mixture.experts.own.trunk.config.hidden_size
    return 3 * (rows - 1) * longest * width  # gathered once; gloo's reduce-scatter sends twice that


def _sent() -> int:
    """Bytes that this process has given to the kernel so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


@click.command()
@click.option("--cases", default=",".join(LAYOUTS), show_default=True, help="Layouts, separated by commas.")
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
@click.option("--steps", default=6, show_default=True, help="The first is a warm-up.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a case.")
def ranks(cases: str, size: str, steps: int, as_json: bool) -> None:
    """A step on several processes of this machine beside one expert's step."""
    for name in cases.split(","):
        layout = LAYOUTS[name]
        case = Case(size, layout.policy_experts, "linear", "trainable", 8, False, "fp32", "cpu", 1, steps)
        found = launch(measure, (name, case), layout.data * layout.experts, preload="mixdpo.stages.train")
        row = {
            "benchmark": "scaling_ranks",
            "case": name,
            "size": size,
            "ranks": f"{layout.data} x {layout.experts}",
            "experts": layout.policy_experts,
            "one_expert_cpu_s": statistics.median(one.alone for one in found),
            "rank_cpu_s": max(one.together for one in found),
            "ratio": max(one.together / one.alone for one in found),
            "sent_mb_per_step": statistics.mean(one.sent for one in found) / 1e6,
            "expected_mb_per_step": statistics.mean(one.expected for one in found) / 1e6,
            "held_parameters": max(one.held for one in found),
        }
        if as_json:
            click.echo(json.dumps(row))
        else:
            click.echo(
                f"{name:8} {row['ranks']:6} {layout.policy_experts} experts: a rank {row['rank_cpu_s']:.3f} s of a "
                f"processor a step, {row['ratio']:.2f} of one expert's step alone; sent "
                f"{row['sent_mb_per_step']:.4f} MB, expected {row['expected_mb_per_step']:.4f}; holds "
                f"{row['held_parameters'] / 1e6:.2f} M parameters"
            )


if __name__ == "__main__":
    ranks()
