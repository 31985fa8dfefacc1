"""Is it worth knowing who judges? One expert a pair, one an annotator, or a gate that knows them, on held-out pairs.

    mixdpo profile use arguments && dvc repro reference
    python benchmarks/annotators.py --seeds 3 --experts 2 --experts 3
    python benchmarks/annotators_report.py --picture held-out.png

Any project whose pairs name their annotators will do. Each finished run leaves a file in --out, and is not run again:
margins and log-weights on the pairs of training and test, from which annotators_report.py makes tables.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from mixdpo.config import Params, load_params
from mixdpo.config.policy import Policy
from mixdpo.data.schema import PREFERENCES, read_table, unit_hash, write_table
from mixdpo.errors import ConfigError
from mixdpo.evaluation.heldout import HeldOut, judge_pairs
from mixdpo.files import replacing
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.stages import reference as reference_stage
from mixdpo.stages import train as train_stage

HEAD = {"kind": "shared", "head": "lowrank", "rank": 16, "trunk": "frozen"}
UNIFORM = {"kind": "fixed", "values": None}
NOISE = {"kind": "noise", "scale": 0.02}
# sees who annotates and nothing else, so that what it gains is theirs
PERSONAL = {
    "kind": "gate",
    "hidden": 0,
    "entropy": 0.0,
    "rest_steps": 50,
    "learning_rate": 1e-2,
    "prompt": False,
    "annotators": {"width": 8, "unknown": 0.1},
}
KINDS = {
    "pair": {"latent": "pair", "weights": UNIFORM},
    "annotator": {"latent": "annotator", "weights": UNIFORM},
    "personal": {"latent": "annotator", "weights": PERSONAL},
}


@dataclass(frozen=True)
class Run:
    """One training: a kind of mixture, its experts, a seed.

    `dpo` is one expert on batches of any pairs; `annotator-1` the same on batches that keep an annotator's together.
    """

    kind: str
    experts: int
    seed: int

    @classmethod
    def named(cls, name: str) -> Run:
        """The inverse of `name`."""
        variant, _, seed = name.rpartition("-seed")
        kind, _, experts = variant.partition("-")
        return cls(kind, int(experts or 1), int(seed))

    @property
    def variant(self) -> str:
        return self.kind if self.kind == "dpo" else f"{self.kind}-{self.experts}"

    @property
    def name(self) -> str:
        return f"{self.variant}-seed{self.seed}"

    def policy(self) -> Policy:
        base: dict[str, Any] = {"experts": self.experts, "architecture": HEAD, "symmetry": NOISE}
        if self.kind == "dpo":
            base |= {"symmetry": {"kind": "none"}, "latent": "pair", "weights": UNIFORM}
        return Policy.model_validate(base | KINDS.get(self.kind, {}))


def runs(kinds: tuple[str, ...], experts: tuple[int, ...], seeds: int) -> Iterator[Run]:
    """Seed by seed, so that an interrupted study has whole seeds."""
    for seed in range(seeds):
        yield Run("dpo", 1, seed)
        for count in experts:
            for kind in kinds:
                yield Run(kind, count, seed)


def excerpt(params: Params, project: Layout, out: Path, pairs: int | None) -> Layout:
    """A project to train in: the same reference policy and test pairs, but only so many training pairs.

    Raises:
        ConfigError: `out` holds runs on other pairs.
    """
    scratch = Layout((out / "project").resolve())
    table = _of_some_annotators(read_table(project.validated("preferences"), PREFERENCES), pairs)
    if (scratch.reference / "key.json").is_file():
        if read_table(scratch.validated("preferences"))["pair_id"] != table["pair_id"]:
            raise ConfigError(f"{out} holds runs on other pairs than these {table.num_rows}; name another --out")
        return scratch
    scratch.sft.parent.mkdir(parents=True, exist_ok=True)
    scratch.sft.symlink_to(project.sft)
    write_table(scratch.validated("preferences"), table, PREFERENCES)
    reference_stage.run(params, scratch)
    return scratch


def _of_some_annotators(table: pa.Table, pairs: int | None) -> pa.Table:
    """The table with at most `pairs` training pairs, of whole annotators by hash; validation pairs of these only."""
    splits, names = table["split"].to_pylist(), table["annotator"].to_pylist()
    counts = Counter(name for name, split in zip(names, splits, strict=True) if split == "train")
    order = sorted(counts, key=lambda name: (unit_hash(name, "excerpt"), name))
    total = np.cumsum([counts[name] for name in order])
    met = set(order if pairs is None else order[: int((total <= pairs).sum())])
    return table.filter(pa.array([split == "test" or name in met for name, split in zip(names, splits, strict=True)]))


def pairs_of(project: Layout, split: str) -> HeldOut:
    return HeldOut.of(read_table(project.validated("preferences"), PREFERENCES), split)


def train_and_judge(run: Run, params: Params, project: Layout, scratch: Layout) -> dict[str, Any]:
    """Train one policy by the stage that the pipeline has, and judge all pairs of train and test with it.

    Returns:
        arrays by name: margins and log-weights of each split, and the seconds of training.
    """
    changed = params.model_copy(update={"seed": run.seed, "policies": {run.name: run.policy()}})
    started = time.perf_counter()
    train_stage.run(changed, scratch, run.name)
    seconds = time.perf_counter() - started
    policy = MixturePolicy.from_pretrained(scratch.policy(run.name))
    found: dict[str, Any] = {"seconds": np.array([seconds])}
    for split in ("train", "test"):
        judgement = judge_pairs(policy, pairs_of(project, split).columns)
        found[f"{split}_margins"], found[f"{split}_log_weights"] = judgement.margins, judgement.log_weights
    return found


PROJECT = click.option("--project", default=".", show_default=True, type=click.Path(file_okay=False, path_type=Path))
OUT = click.option("--out", default=".mixdpo/annotators", show_default=True, type=click.Path(path_type=Path))


@click.command(help=(__doc__ or "").split("\n")[0])
@PROJECT
@OUT
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--pairs", type=click.IntRange(1), help="Training pairs at most, of whole annotators. Default: all.")
@click.option("--experts", multiple=True, default=(2, 3), show_default=True, type=click.IntRange(1), help="Repeatable.")
@click.option("--kind", "kinds", multiple=True, default=tuple(KINDS), show_default=True, type=click.Choice(list(KINDS)))
def main(
    project: Path, out: Path, seeds: int, pairs: int | None, experts: tuple[int, ...], kinds: tuple[str, ...]
) -> None:
    """Train what is not yet in --out, one after the other."""
    params, layout = load_params(project / "params.yaml"), Layout(project.resolve())
    scratch = excerpt(params, layout, out, pairs)
    for run in runs(kinds, experts, seeds):
        target = out / f"{run.name}.safetensors"
        if target.is_file():
            continue
        arrays = train_and_judge(run, params, layout, scratch)
        with replacing(target) as temporary:
            save_file(arrays, temporary)
        click.echo(json.dumps({"run": run.name, "seconds": round(float(arrays["seconds"][0]), 1)}))


if __name__ == "__main__":
    main()
