"""Annotation on each engine: what a shard costs in this process, and on the workers of a temporary Ray cluster.

    python benchmarks/engines.py                       a table
    python benchmarks/engines.py --shards 8 --json     one JSON line an engine

Processor seconds, so that a busy machine changes little: of the function itself wherever it runs ("work"), and of this
process beside it ("stage": reading, digests, sending, writing). The reward models have the demo's shape and random
weights; texts are reviews of the embedded generator.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from mixdpo.config import load_params
from mixdpo.config.engine import RayEngine
from mixdpo.data.embedded import generate_reviews
from mixdpo.engine import Engine, Function, map_shards, read_shards, slices
from mixdpo.engine.cluster import prepare_ray
from mixdpo.engine.local import InProcess
from mixdpo.rewards.annotation import TEXTS, Annotation
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.model import RewardModel
from mixdpo.rewards.tokenizer import train_phrase_tokenizer

PARAMS = load_params(Path(__file__).parents[1] / "profiles" / "demo.yaml")


@dataclass(frozen=True)
class Timed:
    """A task that adds its own processor seconds to its answer, and those of loading to the first."""

    task: Annotation

    def load(self) -> Function:
        started = time.process_time()
        function = self.task.load()
        spent = [time.process_time() - started]

        def timed(rows: pa.Table) -> pa.Table:
            begun = time.process_time()
            answer = function(rows)
            loading = spent.pop() if spent else 0.0
            seconds = {"work": time.process_time() - begun, "load": loading}
            return answer.append_column("seconds", pa.array([json.dumps(seconds)] * rows.num_rows))

        return timed


def project(directory: Path, rows: int) -> tuple[Timed, pa.Table]:
    """Three reward models, and texts for them."""
    reviews = [review["text"] for review in generate_reviews(rows, 200, seed=0)]
    settings = PARAMS.rewards.training
    tokenizer = train_phrase_tokenizer(reviews[:2000], settings.vocabulary, settings.max_tokens)
    models = []
    for seed, name in enumerate(PARAMS.rewards.dimensions):
        RewardModel(new_classifier(settings, tokenizer, name, seed), tokenizer, 1, 1.0).save(directory / name, {})
        models.append((name, (directory / name).absolute()))
    compute = PARAMS.compute.model_copy(update={"device": "cpu"})
    texts = pa.table({"prompt": [""] * rows, "completion": reviews}, schema=TEXTS)
    return Timed(Annotation(tuple(models), PARAMS.rewards.batch_tokens, compute)), texts


@contextmanager
def on_ray(workers: int, directory: Path) -> Iterator[Engine]:
    from ray import cloudpickle

    from mixdpo.engine.crew import Crew

    cloudpickle.register_pickle_by_value(__import__(__name__))
    with closing(Crew(RayEngine(kind="ray", cpus=1, workers=workers), directory / "sign")) as crew:
        yield crew


def measure(engine: Engine, name: str, task: Timed, shards: list[pa.Table], work: Path) -> dict[str, Any]:
    began, stage = time.perf_counter(), time.process_time()
    table = read_shards(map_shards(engine, task, shards, work, name))
    wall, stage = time.perf_counter() - began, time.process_time() - stage
    each = [json.loads(text) for text in dict.fromkeys(table["seconds"].to_pylist())]
    work_seconds, load = sum(one["work"] for one in each), sum(one["load"] for one in each)
    if isinstance(engine, InProcess):
        stage -= work_seconds + load
    return {
        "benchmark": "engines",
        "engine": name,
        "shards": len(shards),
        "rows": table.num_rows,
        "work_s_per_shard": work_seconds / len(shards),
        "stage_s_per_shard": stage / len(shards),
        "load_s": load,
        "wall_s": wall,
        "scores": table.drop_columns(["seconds"]),
    }


@click.command()
@click.option("--shards", default=4, show_default=True)
@click.option("--rows", default=8192, show_default=True, help="Texts a shard.")
@click.option("--workers", default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(shards: int, rows: int, workers: int, as_json: bool) -> None:
    """Annotate the same texts on both engines, and compare scores and costs."""
    prepare_ray(RayEngine(kind="ray", cpus=1))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        task, texts = project(directory, shards * rows)
        parts = slices(texts, rows)
        measured = [measure(InProcess(), "local", task, parts, directory / "local")]
        with on_ray(workers, directory) as engine:
            # the first also waits for the cluster and for its workers
            names = ("ray, with its start", "ray")
            measured += [measure(engine, name, task, parts, directory / name) for name in names]
    expected = measured[0]["scores"]
    for one in measured:
        assert one.pop("scores").equals(expected), f"{one['engine']}: scores differ from the local engine's"
        if as_json:
            click.echo(json.dumps(one))
    if not as_json:
        click.echo(f"{'engine':<22}{'work, s a shard':>18}{'stage, s a shard':>18}{'loading, s':>12}{'wall, s':>10}")
        for one in measured:
            costs = (one["work_s_per_shard"], one["stage_s_per_shard"], one["load_s"], one["wall_s"])
            click.echo(
                f"{one['engine']:<22}" + "".join(f"{c:>{w}.2f}" for c, w in zip(costs, (18, 18, 12, 10), strict=True))
            )


if __name__ == "__main__":
    main()
