"""A study as a Prefect flow: each variant a task that may be retried, then the table and the picture as artifacts.

    python -m flows.study NAME [--seeds N] [--workers 1] [--root DIRECTORY]

Variants run as child processes through `mixdpo study run NAME --only VARIANT`, so they share its cache: a study that
was interrupted goes on, and one that was run by hand is only put together.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from flows.command import told
from flows.ending import told_by_state
from flows.parameters import Seeds, StudyName, Workers
from flows.process import Children
from flows.server import server
from flows.tasks import RETRIES, TAIL, CommandError, is_transient
from flows.training_slot import training_slot
from mixdpo.evaluation.markdown import table
from mixdpo.layout import Layout
from mixdpo.studies.plan import Plan, plan
from mixdpo.studies.report import plain_table, summary_table, write_results
from mixdpo.studies.study import Results

MIXDPO = (sys.executable, "-m", "mixdpo.cli")


@dataclass(frozen=True)
class Studied:
    """What a run left, and the text that tells it."""

    paths: tuple[Path, ...]
    summary: str
    outcome: str
    reason: str


# the study keeps figures by what they depend on: a result kept by Prefect could only contradict it
@task(cache_policy=NO_CACHE, persist_result=False, retries=RETRIES, retry_condition_fn=is_transient)
def run_variant(name: str, key: str, seeds: int, root: Path, children: Children) -> None:
    """Train one variant of study `name` under seeds 0 to `seeds` less one, its lines streamed to the log.

    Raises:
        CommandError: it failed; it is retried where it said that trying again may help (exit code 75).
    """
    logger = get_run_logger()
    tail: deque[str] = deque(maxlen=TAIL)

    def keep(line: str) -> None:
        tail.append(line)
        logger.info(line)

    command = (*MIXDPO, "--root", str(root), "study", "run", name, "--seeds", str(seeds), "--only", key)
    if code := children.run(command, root, keep):
        raise CommandError(f"variant {key} of study {name}", code, tail)


@flow(name="variants", persist_result=False)
def run_variants(name: str, keys: list[str], seeds: int, root: Path, backoff_seconds: float = 10.0) -> None:
    """Train these variants. Its task runner bounds how many run side by side.

    Raises:
        CommandError: of the first variant, in the grid's order, that failed; the others have run.
    """
    with Children() as children:
        futures = [
            run_variant.with_options(
                name=name, task_run_name=key, retry_delay_seconds=exponential_backoff(backoff_seconds)
            ).submit(name, key, seeds, root, children, return_state=False)
            for key in keys
        ]
        for future in futures:
            future.wait()
        for future in futures:
            future.result()


@task(cache_policy=NO_CACHE, persist_result=False)
def publish(planned: Plan, results: Results) -> tuple[Path, ...]:
    """Write the study's results and make Prefect artifacts of table and picture."""
    study = planned.study
    paths = tuple(write_results(study, results, planned.layout))
    picture = paths[-1]
    create_markdown_artifact(
        f"{study.question}\n\n{table(*summary_table(study, results))}", key=f"study-{study.name}", description="Table"
    )
    create_link_artifact(
        picture.as_uri(), link_text=str(picture), key=f"study-{study.name}-picture", description=study.question
    )
    return paths


@flow(name="study", persist_result=False)
@told_by_state
def study(name: StudyName, seeds: Seeds | None = None, workers: Workers = 1, root: Path = Path()) -> Studied:
    """Run one study of the project.

    Args:
        name: as `mixdpo study list` has it.
        seeds: 0 to this number less one; None: as many as studies/params.yaml says.
        workers: variants trained side by side at most.
        root: the project's directory.

    Raises:
        CommandError: a variant failed. MixDPOError: the project or its parameters do not fit.
    """
    planned = plan(Layout(root.resolve()), name, seeds)
    runner: Any = ThreadPoolTaskRunner(max_workers=workers)  # which with_options does not admit by its annotation
    finished = planned.finished()
    todo = {variant.key: None for variant, seed in planned.trainings if (variant, seed) not in finished}
    with training_slot():
        run_variants.with_options(task_runner=runner)(name, list(todo), len(planned.seeds), planned.layout.root)
    results = planned.run(lambda _: None)
    paths = publish(planned, results)
    wrote = "\n".join(f"wrote {path}" for path in paths)
    trained = f"{len(todo)} variants trained" if todo else "no variant was missing"
    return Studied(
        paths,
        summary=f"{planned.study.question}\n\n{plain_table(planned.study, results)}\n\n{wrote}",
        outcome="Studied" if todo else "Nothing new",
        reason=f"{name}: {trained}; {paths[0]}",
    )


@click.command(help=(__doc__ or "").split("\n")[0])
@click.argument("name")
@click.option("--seeds", type=click.IntRange(1), help="Seeds 0 to N-1.  [default: as in studies/params.yaml]")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1), help="Variants trained side by side at most."
)
@click.option("--root", default=".", type=click.Path(file_okay=False, path_type=Path), help="The project's directory.")
def main(name: str, seeds: int | None, workers: int, root: Path) -> None:
    with told():
        plan(Layout(root), name, seeds).finished()  # what is wrong is told before a server starts
        with server():
            done = study(name=name, seeds=seeds, workers=workers, root=root)
    click.echo(f"\n{done.summary}")


if __name__ == "__main__":
    main()
