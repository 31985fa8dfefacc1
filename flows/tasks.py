"""One Prefect task for a stage of dvc.yaml, and the flow that runs them all in the graph's order."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.tasks import exponential_backoff

from flows.graph import Stage, as_far_as, read_graph
from flows.process import Children
from mixdpo.errors import TransientError

RETRIES = 3
TAIL = 20  # lines of a failed command that its error repeats
Outcome = Literal["ran", "restored", "unchanged"]
REMARKS: dict[str, Outcome] = {r"Running stage '": "ran", r"Stage '.*' is cached - skipping run": "restored"}
# what DVC advises after each stage; here it would bury what the stage says
ADVICE = re.compile(
    r"To track the changes with git|\s+git add |To enable auto staging|\s+dvc config core|Use `dvc push`"
)
DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")  # stages side by side meet at DVC's lock


@dataclass(frozen=True)
class StageResult:
    """What became of a stage: it ran, DVC had its outputs in the cache, or nothing about it had changed."""

    name: str
    outcome: Outcome
    seconds: float


class CommandError(Exception):
    """A stage, or a transfer of data, that ended with an error. The message ends with its last lines."""

    def __init__(self, what: str, exit_code: int, tail: Iterable[str]) -> None:
        self.exit_code = exit_code
        last = "\n".join(f"    {line}" for line in tail) or "    (it printed nothing)"
        super().__init__(
            f"{what} failed with exit code {exit_code}. Its last lines:\n{last}\n"
            "Mend the cause and run again: what was finished is kept."
        )


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether trying again may help: a hub or store that did not answer, never an error of code or data."""
    if isinstance(state.data, CommandError):
        return state.data.exit_code == TransientError.exit_code
    return isinstance(state.data, TransientError)


# DVC decides what is stale, each time it is asked: a result kept by Prefect could only contradict it
@task(cache_policy=NO_CACHE, persist_result=False, retries=RETRIES, retry_condition_fn=is_transient)
def run_stage(stage: Stage, root: Path, children: Children) -> StageResult:
    """Reproduce one stage through DVC, its lines streamed to the log of the run.

    Raises:
        CommandError: the stage failed; it is retried where it said that trying again may help (exit code 75).
    """
    if not stage.check:
        return StageResult(stage.name, "unchanged", 0.0)
    outcome: Outcome = "unchanged"

    def see(line: str) -> None:
        nonlocal outcome
        for remark, meaning in REMARKS.items():
            if re.match(remark, line):
                outcome = meaning

    started = time.monotonic()
    _dvc(("repro", "--single-item", stage.name), root, children, f"stage {stage.name}", see)
    return StageResult(stage.name, outcome, time.monotonic() - started)


@task(cache_policy=NO_CACHE, persist_result=False)
def transfer(direction: Literal["pull", "push"], root: Path, children: Children) -> None:
    """Bring what DVC's remote has of this project's data and runs, or give it what it lacks."""
    missing = ("--allow-missing",) if direction == "pull" else ()
    _dvc((direction, "--run-cache", *missing), root, children, f"dvc {direction}")


def _dvc(
    arguments: Sequence[str],
    root: Path,
    children: Children,
    what: str,
    on_line: Callable[[str], None] = lambda _: None,
) -> None:
    """Run a DVC command, each line to the log and to `on_line`."""
    logger = get_run_logger()
    tail: deque[str] = deque(maxlen=TAIL)

    def keep(line: str) -> None:
        if ADVICE.match(line):
            return
        tail.append(line)
        logger.info(line)
        on_line(line)

    code = children.run((*DVC, *arguments), root, keep)
    if code:
        # DVC ends with 255 whatever happened, but tells how the stage's own command ended
        told = [int(found) for line in tail for found in re.findall(r"exited with (\d+)$", line)]
        raise CommandError(what, told[-1] if told else code, tail)


@flow(name="stages", persist_result=False)
def run_stages(root: Path, until: str | None = None, backoff_seconds: float = 10.0) -> list[StageResult]:
    """Run the graph of dvc.yaml, each stage as soon as those it depends on are done and a worker is free.

    Its task runner bounds how many run side by side. After a failure, stages that do not depend on the failed one
    still run; those that do are shown as not ready.

    Args:
        until: run this stage alone, and before it all that it is made from.

    Raises:
        CommandError: of the first stage, in the graph's order, that failed.
        ConfigError: there is no stage `until`.
    """
    graph = read_graph(root)
    stages = {stage.name: stage for stage in (graph if until is None else as_far_as(graph, until))}
    sorter = TopologicalSorter({stage.name: stage.upstream for stage in stages.values()})
    sorter.prepare()
    futures: dict[str, PrefectFuture[StageResult]] = {}
    names: dict[UUID, str] = {}
    finished: SimpleQueue[PrefectFuture[StageResult]] = SimpleQueue()
    with Children() as children:
        while sorter.is_active():
            # submitted only now, because a task that waits inside the runner would occupy a worker
            for name in sorter.get_ready():
                named = run_stage.with_options(
                    name=name, task_run_name=name, retry_delay_seconds=exponential_backoff(backoff_seconds)
                )
                upstream = [futures[up] for up in stages[name].upstream]
                future = named.submit(stages[name], root, children, wait_for=upstream, return_state=False)
                futures[name], names[future.task_run_id] = future, name
                future.add_done_callback(finished.put)
            sorter.done(names[finished.get().task_run_id])
        return [futures[name].result() for name in stages]
