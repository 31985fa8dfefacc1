"""What the machinery costs: starting the command line, asking DVC what is stale, running a stage through Prefect.

    python benchmarks/pipeline.py            a table
    python benchmarks/pipeline.py --json     one JSON line a case

Nothing is trained. `dvc repro` is timed on the real graph with stand-ins for its outputs, which DVC is told to take for
finished; what Prefect adds is timed on stages that do nothing, in a chain, so that none hides behind another. A stage's
own price is the slope between a short and a long chain, what a run pays once is the rest.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).parents[1]
DVC = (sys.executable, "-m", "dvc")
VERBS = (("--help",), ("prepare", "--help"), ("train", "--help"), ("generate", "--help"))
SHORT, LONG = 2, 8  # stages of a chain


class Cost(NamedTuple):
    """Seconds on the wall, and of processor time of this process and its children that have ended."""

    wall: float
    cpu: float

    def __sub__(self, other: Cost) -> Cost:  # type: ignore[override]
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def over(self, number: int) -> Cost:
        return Cost(self.wall / number, self.cpu / number)


def timed(work: Callable[[], object]) -> Cost:
    def now() -> Cost:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return Cost(time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used))

    started = now()
    work()
    return now() - started


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)


def start_up(repeats: int) -> Iterator[tuple[str, Cost]]:
    yield "python", median([timed(lambda: run(sys.executable, "-c", "pass")) for _ in range(repeats)])
    for words in VERBS:
        command = (sys.executable, "-m", "mixdpo.cli", *words)
        run(*command)  # once to compile
        yield f"mixdpo {' '.join(words)}", median([timed(partial(run, *command)) for _ in range(repeats)])


def repository(root: Path) -> Path:
    root.mkdir(parents=True)
    run("git", "init", "--quiet", cwd=root)
    run(*DVC, "init", "--quiet", cwd=root)
    return root


def finished_project(root: Path) -> Path:
    """The real graph and code, with something small in the place of every output."""
    repository(root)
    shutil.copytree(ROOT / "mixdpo", root / "mixdpo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "profiles" / "demo.yaml", root / "params.yaml")
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    (root / "data" / "external").mkdir(parents=True)
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        outputs = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs]
    for path in outputs:
        inside = path if path.suffix else path / "part"
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text("{}" if path.suffix == ".json" else path.name)
    run(*DVC, "commit", "--force", "--quiet", cwd=root)
    return root


def nothing_to_do(directory: Path, repeats: int) -> Iterator[tuple[str, Cost]]:
    root = finished_project(directory / "finished")
    done = subprocess.run((*DVC, "repro"), cwd=root, check=True, capture_output=True, text=True).stdout
    assert "Running stage" not in done, done
    yield "dvc repro, nothing to do", median([timed(lambda: run(*DVC, "repro", cwd=root)) for _ in range(repeats)])


def chain(root: Path, stages: int) -> Path:
    """A project whose stages only pass a file on."""
    repository(root)
    lines = ["stages:", "  s0: {cmd: echo 0 > f0, outs: [f0]}"]
    lines += [f"  s{n}: {{cmd: cp f{n - 1} f{n}, deps: [f{n - 1}], outs: [f{n}]}}" for n in range(1, stages)]
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")
    return root


@contextmanager
def prefect_server(home: Path) -> Iterator[Cost]:
    """A server with a database that is migrated already; what its start took."""
    import os

    os.environ["PREFECT_HOME"] = str(home)
    from flows.server import server

    with server():  # the first one on a machine migrates the database
        pass
    opened = server()
    cost = timed(opened.__enter__)
    try:
        yield cost
    finally:
        opened.__exit__(None, None, None)


def prefect_over_dvc(directory: Path, repeats: int) -> Iterator[tuple[str, Cost]]:
    yield "prefect, import", timed(lambda: __import__("flows.tasks"))
    from flows.tasks import run_stages

    with prefect_server(directory / "home") as start:
        yield "prefect, start of its server", start
        run_stages(chain(directory / "warm", 1))
        slopes: dict[str, list[Cost]] = {"dvc": [], "prefect": []}
        once = []
        for repeat in range(repeats):
            costs = {}
            for stages in (SHORT, LONG):
                alone, through = (chain(directory / f"{kind}-{repeat}-{stages}", stages) for kind in ("dvc", "prefect"))
                costs["dvc", stages] = timed(partial(run, *DVC, "repro", cwd=alone))
                costs["prefect", stages] = timed(partial(run_stages, through))
            for kind, found in slopes.items():
                found.append((costs[kind, LONG] - costs[kind, SHORT]).over(LONG - SHORT))
            stage = slopes["prefect"][-1]
            once.append(costs["prefect", SHORT] - Cost(SHORT * stage.wall, SHORT * stage.cpu))
    yield "dvc repro, a stage that does nothing", median(slopes["dvc"])
    yield "prefect, a stage that does nothing", median(slopes["prefect"])
    more = [ours - theirs for ours, theirs in zip(slopes["prefect"], slopes["dvc"], strict=True)]
    yield "prefect over dvc, a stage", median(more)
    yield "prefect, once a run", median(once)


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Of each case; its median counts.")
@click.option("--json", "as_json", is_flag=True)
def main(repeats: int, as_json: bool) -> None:
    """Time start-up, a `dvc repro` that finds nothing to do, and what Prefect adds to a stage."""
    if not as_json:
        click.echo(f"{'case':<40} {'seconds':>8} {'processor':>10}")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for cases in (start_up(repeats), nothing_to_do(directory, repeats), prefect_over_dvc(directory, repeats)):
            for case, cost in cases:
                row = {"benchmark": "pipeline", "case": case, "seconds": cost.wall, "cpu_seconds": cost.cpu}
                click.echo(json.dumps(row) if as_json else f"{case:<40} {cost.wall:>8.2f} {cost.cpu:>10.2f}")


if __name__ == "__main__":
    main()
