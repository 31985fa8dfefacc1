"""What the ranks do that the tests of this directory start. A module of its own: other processes import it by name."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from transformers import GPT2Config, GPT2LMHeadModel

from mixdpo.config.policy import Policy
from mixdpo.config.training import Parallel, Training
from mixdpo.policy.gate_inputs import GateInputs
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.tokens import TokenRow, pad
from mixdpo.policy.weighting import Gate, PriorWeights, Weighting
from mixdpo.training import Mixture, PreferencePairs, Setup, TrainingResult, train_mixture
from mixdpo.training.growth import grow_mixture
from mixdpo.training.parallel import ALONE, Ranks, joined
from mixdpo.training.run import Run

CPU = torch.device("cpu")
VOCABULARY = 40
RANKS = 4
POLICY = {
    "experts": 4,
    "architecture": {"kind": "independent"},
    "weights": {"kind": "fixed", "values": None},
    "latent": "annotator",
    "symmetry": {"kind": "noise", "scale": 0.2},
}
SETTINGS = {
    "beta": 0.5,
    "epochs": 1,
    "batch_pairs": 12,
    "learning_rate": 3e-3,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "clip": 0.5,
    "tempering": {"start": 2.0, "steps": 3},
    "tile_tokens": 64,
    "max_tokens": 32,
    "evaluate_every": 3,
    "checkpoint_every": 2,
}

TRAINABLE = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}
LOW_RANK = {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "frozen"}
LORA = {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "lora", "lora": {"rank": 2, "alpha": 4}}
GLOBAL = {"kind": "global", "alpha": 1.1, "smoothing": 0.5}
GATE = {
    "kind": "gate",
    "hidden": 4,
    "entropy": 0.01,
    "rest_steps": 1,
    "learning_rate": 1e-2,
    "balance": {"strength": 0.5, "steps": 4},
}
ALL_OPTIONS = {
    "weights": GATE,
    "noise": {"kind": "learned", "epsilon": 0.1},
    "relaxation": {"straight_through": False, "start": 2.0, "floor": 0.5, "steps": 3, "shape": "linear"},
    "sparsity": {"top": 3, "by": "responsibilities"},
    "nll": 0.1,
    "reseed": {"usage": 0.4, "patience": 2, "steps": 2},
    "betas": [0.5, 0.4, 0.3, 0.6],
    "margins": "token",
    "carry": 0.5,
}


class Case(NamedTuple):
    """A policy, and the grid that trains it."""

    data: int
    experts: int
    shard: bool
    options: dict[str, Any]


CASES = {
    "whole models, all options": Case(2, 2, False, ALL_OPTIONS),
    "one trunk for all, all options": Case(2, 2, False, {"architecture": TRAINABLE} | ALL_OPTIONS),
    "frozen trunk, three experts on two rows, one expert frozen": Case(
        2, 2, False, {"experts": 3, "architecture": LOW_RANK, "frozen": [1], "latent": "pair"}
    ),
    "adapters in one trunk": Case(1, 4, False, {"architecture": LORA, "latent": "pair", "weights": GLOBAL}),
    "more ranks than pairs in the last batch": Case(
        4, 1, False, {"experts": 1, "latent": "pair", "symmetry": {"kind": "none"}}
    ),
    "several starts": Case(2, 2, False, {"starts": {"number": 2, "steps": 2}}),
    "growth": Case(2, 2, False, {"experts": 2, "growth": {"most": 3, "steps": 2, "gain": 0.0, "prune": 0.1}}),
    "whole models, sharded": Case(2, 2, True, ALL_OPTIONS),
    "one trunk for all, sharded": Case(2, 2, True, {"architecture": TRAINABLE, "frozen": []}),
}


def model() -> GPT2LMHeadModel:
    shape = GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(shape).eval()


@torch.no_grad()
def pairs(count: int, annotators: int, seed: int) -> PreferencePairs:
    """Random tokens; some annotators prefer small ids, the others large ones."""
    draw = random.Random(seed)
    chosen, rejected, who = [], [], []
    for place in range(count):
        prompt = [draw.randrange(VOCABULARY) for _ in range(draw.randint(2, 6))]
        sides = [[draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 9))] for _ in range(2)]
        who.append(place % annotators)
        sides.sort(key=lambda side: sum(side) / len(side), reverse=who[-1] % 2 == 1)
        chosen.append(TokenRow(prompt, sides[0]))
        rejected.append(TokenRow(prompt, sides[1]))
    reference = frozen_reference(model())
    return PreferencePairs(
        [f"pair-{place}" for place in range(count)],
        chosen,
        rejected,
        torch.tensor(who),
        reference(pad(chosen))[:, 0],
        reference(pad(rejected))[:, 0],
        reference.prompt_features(pad([TokenRow(row.prompt, []) for row in chosen])),
    )


def mixture_of(policy: Policy, settings: Training, train: PreferencePairs) -> Mixture:
    draw = torch.Generator().manual_seed(1)
    experts = new_experts(model(), policy.experts, policy.architecture.model_dump(mode="json"), draw)
    weighting: Weighting = PriorWeights.uniform(policy.experts)
    if policy.weights.kind == "gate":
        weighting = Gate(GateInputs(train.features.shape[1]), policy.experts, policy.weights.hidden, draw)
        weighting.standardise(train.features)
    return Mixture(experts, weighting, Likelihood.of(policy, settings))


class Trained(NamedTuple):
    result: TrainingResult
    tensors: dict[str, Tensor]


def train(ranks: Ranks, options: dict[str, Any], checkpoint: Path | None = None) -> Trained:
    """27 pairs; where each has its own latent, in three batches, the last of three pairs."""
    grid = None if ranks.alone else Parallel(data=ranks.data, experts=ranks.experts)
    settings = Training.model_validate(SETTINGS | {"parallel": grid})
    policy = Policy.model_validate(POLICY | options)
    learn, held_out = pairs(27, 6, 0), pairs(9, 3, 1)
    mixture = mixture_of(policy, settings, learn)
    fit = grow_mixture if policy.growth else train_mixture
    result = fit(mixture, learn, held_out, Setup(settings, policy, 7, CPU, ranks=ranks), checkpoint)
    return Trained(result, {name: tensor.detach().clone() for name, tensor in mixture.state_dict().items()})


def difference(one: Trained, other: Trained) -> dict[str, float]:
    """The largest of any logged figure, and of any parameter."""
    rows = list(zip(one.result.history, other.result.history, strict=True))
    assert all(mine.keys() == theirs.keys() for mine, theirs in rows)
    assert one.tensors.keys() == other.tensors.keys()
    return {
        "steps": len(rows),
        "figures": max(abs(mine[name] - theirs[name]) for mine, theirs in rows for name in mine),
        "tensors": max(float((one.tensors[name] - other.tensors[name]).abs().max()) for name in one.tensors),
    }


def regrouped(ranks: Ranks, data: int, experts: int, shard: bool = False) -> Ranks:
    """The same processes as another grid."""
    mesh = init_device_mesh("cpu", (experts, data), mesh_dim_names=("experts", "data"))
    return dataclasses.replace(ranks, data=data, experts=experts, shard=shard, mesh=mesh)


def equality(cases: list[str]) -> dict[str, dict[str, float]]:
    """How far training over ranks ends from training by one process."""
    found = {}
    with joined(Parallel(data=RANKS, experts=1), 1, CPU) as ranks:
        for name in cases:
            case = CASES[name]
            together = train(regrouped(ranks, case.data, case.experts, case.shard), case.options)
            if ranks.first:
                found[name] = difference(together, train(ALONE, case.options))
    return found


class StoppedError(Exception):
    pass


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    usual = Run.step

    def until(run: Run, number: int) -> Any:
        if number == step:
            raise StoppedError
        return usual(run, number)

    Run.step = until  # type: ignore[method-assign]
    try:
        yield
    except StoppedError:
        pass
    finally:
        Run.step = usual  # type: ignore[method-assign]


def resumption(directory: str) -> dict[str, dict[str, float]]:
    """How far runs that were stopped and went on, on these two ranks or others, end from one that was not stopped."""
    found = {}
    root = Path(directory)
    with joined(Parallel(data=2, experts=1), 1, CPU) as ranks:
        column, row = regrouped(ranks, 1, 2), regrouped(ranks, 2, 1)
        ways = {
            "shared, same ranks": ({"architecture": TRAINABLE} | ALL_OPTIONS, column),
            "shared, other ranks": ({"architecture": TRAINABLE} | ALL_OPTIONS, dataclasses.replace(row, shard=True)),
            "whole, same ranks": (ALL_OPTIONS, column),
            "whole, one process": (ALL_OPTIONS, ALONE),
        }
        for kind in ("shared", "whole"):
            options = ways[f"{kind}, same ranks"][0]
            never_stopped = train(column, options)
            with stopping_at(2):
                train(column, options, root / kind)
            for way, (_, grid) in ways.items():
                if not way.startswith(kind) or (grid.alone and not ranks.first):
                    continue
                copied = root / way
                if ranks.first:
                    shutil.copytree(root / kind, copied)
                found[way] = difference(train(grid, options, copied), never_stopped)
    return found


def losing(how: str, seconds: int) -> None:
    """Train on two ranks, of which the second comes to grief at the third step."""
    with joined(Parallel(data=1, experts=2, timeout_seconds=seconds), 2, CPU) as ranks:
        usual = Run.step

        def fatal(run: Run, number: int) -> Any:
            if ranks.rank == 1 and number == 2:
                if how == "raises":
                    raise RuntimeError("too little memory")
                if how == "hangs":
                    time.sleep(600)
                os.kill(os.getpid(), signal.SIGKILL)
            return usual(run, number)

        Run.step = fatal  # type: ignore[method-assign]
        train(ranks, {})
