"""The main job: run what is stale of dvc.yaml, publish metrics and report, register the policy.

    python -m flows.retrain [--workers 2] [--no-register] [--pull] [--push] [--warm-start REFERENCE] [--root DIRECTORY]

DVC decides what is stale. What must not be in a reproducible graph (moving data, publishing, registering) happens here.
Works with no Prefect server running (one is started for the run) and against the one that PREFECT_API_URL names.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from flows.command import told
from flows.ending import told_by_state
from flows.graph import read_graph
from flows.new_data import run_gated, take_new
from flows.parameters import Reference, Workers
from flows.process import Children
from flows.results_branch import commit_results
from flows.server import server
from flows.summary import outcome_counts, registration_text, summarise
from flows.tasks import RETRIES, StageResult, is_transient, run_stages, transfer
from flows.training_slot import training_slot
from flows.warm_start import warm_start as rewrite_params
from mixdpo.config import Params, load_params
from mixdpo.data.arrivals import Arrived
from mixdpo.evaluation.headline import headline
from mixdpo.evaluation.markdown import markdown_table
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.registry import Version


@dataclass(frozen=True)
class Retrained:
    """What one run did, and the text that tells it."""

    stages: tuple[StageResult, ...]
    version: Version | None
    summary: str
    arrived: Arrived | None = None  # None where params.yaml names no place where files land

    @property
    def outcome(self) -> Literal["Registered", "Nothing new", "Not registered"]:
        if self.version is not None and self.version.created:
            return "Registered"
        idle = self.version is not None or all(stage.outcome == "unchanged" for stage in self.stages)
        return "Nothing new" if idle else "Not registered"

    @property
    def reason(self) -> str:
        """Why it ended so, in a line."""
        counts = outcome_counts(self.stages)
        if self.arrived is not None:
            counts += f"; arrivals: {self.arrived}"
        if self.version is None:
            return f"{counts}; no registration was asked for"
        aliases = f" ({', '.join(self.version.aliases)})" if self.version.aliases else ""
        state = "" if self.version.created else " has the same content already"
        return f"{self.version.reference}{aliases}{state}; stages: {counts}"


@flow(name="retrain", persist_result=False)
@told_by_state
def retrain(
    workers: Workers = 2,
    registration: bool = True,
    pull: bool = False,
    push: bool = False,
    warm_start: Reference | None = None,
    results_branch: str | None = None,
    results_remote: str | None = None,
    root: Path = Path(),
) -> Retrained:
    """From new files and params.yaml to a registered policy.

    Args:
        workers: stages run side by side at most.
        registration: whether the policy that params.yaml names becomes a version in the registry.
        pull: whether data and earlier runs come from DVC's remote first.
        push: whether data and these runs go to DVC's remote afterwards.
        warm_start: a version, such as reviews@production, that training goes on from: params.yaml is changed so. Where
            files arrive, it waits for new ones.
        results_branch: a branch of this repository that gets params.yaml, dvc.lock, metrics and plots as a commit.
        results_remote: a remote of git that this branch is pushed to.
        root: the project's directory.

    Raises:
        CommandError: a stage failed. MixDPOError: params.yaml, dvc.yaml or the registry does not fit.
    """
    started = time.monotonic()
    root = root.resolve()
    layout = Layout(root)
    params = load_params(root / "params.yaml")  # a wrong value is told before anything starts
    with Children() as children:
        if pull:
            transfer("pull", root, children)
        arrived = take_new(params, layout) if params.arrivals is not None else None
        if warm_start is not None and arrived is None:
            go_on_from(root, warm_start)
        if (idle := nothing_new(params, layout, registration, arrived)) is not None:
            if results_branch is not None:
                keep_results(layout, results_branch, results_remote, idle.version)
            if push:  # the run before may have ended before it had pushed all
                transfer("push", root, children)
            return idle
        if warm_start is not None and arrived is not None:  # not for nothing new: each version would lead to a next one
            go_on_from(root, warm_start)
        runner: Any = ThreadPoolTaskRunner(max_workers=workers)  # which with_options does not admit by its annotation
        in_order = partial(run_stages.with_options(task_runner=runner), root)
        with training_slot():
            stages = run_gated(in_order, params, layout)
        metrics = publish(layout)
        version = register_policy(layout, f"retrain run {flow_run.name}") if registration else None
        if results_branch is not None:
            keep_results(layout, results_branch, results_remote, version)
        if push:
            transfer("push", root, children)
    report = layout.reports / "index.html"
    summary = summarise(stages, time.monotonic() - started, metrics, report, version)
    return Retrained(stages, version, summary, arrived)


def nothing_new(params: Params, layout: Layout, registration: bool, arrived: Arrived | None) -> Retrained | None:
    """What a run is that has nothing to do: no stage is stale, and what they made is registered if it is to be."""
    from mixdpo.stages.register import registered  # imports what only publishing needs

    graph = read_graph(layout.root)
    if any(stage.check for stage in graph):
        return None
    version = registered(params, layout) if registration else None
    if registration and version is None:
        return None
    stages = tuple(StageResult(stage.name, "unchanged", 0.0) for stage in graph)
    told = "" if version is None else "\n\n" + registration_text(version)
    return Retrained(stages, version, f"Nothing new: no stage of {len(stages)} is stale{told}", arrived)


@task(name="warm-start", cache_policy=NO_CACHE, persist_result=False)
def go_on_from(root: Path, reference: str) -> None:
    """Rewrite params.yaml to start from a version of the registry, and say what changed."""
    changed = rewrite_params(root, reference)
    logger = get_run_logger()
    for line in changed or [f"it starts from {reference} already"]:
        logger.info("params.yaml: %s", line)


@task(cache_policy=NO_CACHE, persist_result=False)
def publish(layout: Layout) -> str:
    """Make Prefect artifacts of the metrics and the report; the table of the metrics."""
    metrics = read_json(layout.metrics("evaluation"))
    table, found = markdown_table(metrics), headline(metrics)
    points = "\n".join(f"- {point}" for point in found.points)
    create_markdown_artifact(
        f"{found.lead}\n\n{points}\n\n{table}", key="metrics", description="Policies on held-out data"
    )
    create_markdown_artifact(
        (layout.reports / "report.md").read_text(encoding="utf-8"),
        key="report",
        description="The report, without figures",
    )
    page = layout.reports / "index.html"
    create_link_artifact(page.as_uri(), link_text=str(page), key="report-page", description="The report, with figures")
    return table


@task(
    name="register",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=is_transient,
)
def register_policy(layout: Layout, reason: str) -> Version:
    """Publish the policy as a version of the registry; the same as before makes no new one."""
    from mixdpo.stages.register import register  # imports what only publishing needs

    return register(load_params(layout.root / "params.yaml"), layout, reason)


@task(
    name="results-branch",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(10),
    retry_condition_fn=is_transient,
)
def keep_results(layout: Layout, branch: str, remote: str | None, version: Version | None) -> None:
    """Commit what the run left on a branch; the same as before makes no commit."""
    what = f"{version.reference}: " if version is not None else ""
    commit = commit_results(layout, branch, f"{what}retrain run {flow_run.name}", remote)
    get_run_logger().info("branch %s: %s", branch, commit or "has the same already")


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1), help="Stages run side by side at most."
)
@click.option(
    "--register/--no-register",
    "registration",
    default=True,
    show_default=True,
    help="Publish the policy in the registry.",
)
@click.option("--pull", is_flag=True, help="First get data and earlier runs from DVC's remote.")
@click.option("--push", is_flag=True, help="Afterwards give data and these runs to DVC's remote.")
@click.option("--warm-start", metavar="REFERENCE", help="Go on from a version, such as reviews@production.")
@click.option("--results-branch", metavar="NAME", help="Commit params.yaml, dvc.lock, metrics and plots on a branch.")
@click.option("--results-remote", metavar="REMOTE", help="Push that branch there.")
@click.option("--root", default=".", type=click.Path(file_okay=False, path_type=Path), help="The project's directory.")
def main(**options: Any) -> None:
    with told(), server():
        done = retrain(**options)
    click.echo(f"\n{done.summary}")


if __name__ == "__main__":
    main()
