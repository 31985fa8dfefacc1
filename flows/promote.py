"""Promotion as a Prefect flow: rules first, then a person where one is asked for, then the alias.

    python -m flows.promote reviews@staging [production] --reason "…" [--approval]

A run from a deployment is suspended while it waits: its worker is free, and starts it again with the answer. What was
looked at is what is promoted, though the alias that named it may have moved on meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from prefect.settings import PREFECT_API_URL
from prefect.tasks import exponential_backoff
from pydantic import Field

from flows.command import told
from flows.ending import told_by_state
from flows.parameters import Reason, Reference
from flows.server import server
from flows.tasks import RETRIES, is_transient
from mixdpo.config import load_params
from mixdpo.errors import ConfigError, PromotionRefused
from mixdpo.layout import Layout
from mixdpo.registry import Version, open_registry
from mixdpo.stages import promote as stage

WEEK = 7 * 86400  # in seconds
ATTEMPTS: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(10),
    "retry_condition_fn": is_transient,
}


class Approval(RunInput):
    """What a person answers, in Prefect's pages or by `prefect flow-run resume`."""

    version: Annotated[str, Field(description="What is promoted; leave it as it is")]
    approve: Annotated[bool, Field(description="Whether people are served from it")] = False
    reason: Annotated[Reason, Field(description="Why; kept in the registry's log")]
    by: Annotated[Reason, Field(description="Who decides; kept in the registry's log")]


@dataclass(frozen=True)
class Promoted:
    """What became of it, and the rules' table."""

    outcome: Literal["Promoted", "Declined", "Nothing new"]
    reason: str
    summary: str


@flow(name="promote", persist_result=False)
@told_by_state
def promote(
    reference: Reference,
    alias: str | None = None,
    reason: Reason = "promoted by the flow",
    approval: bool = False,
    root: Path = Path(),
) -> Promoted:
    """Let a version take an alias that people are served from.

    Args:
        reference: the version, such as reviews@staging.
        alias: one of promotion.aliases; by default the first.
        reason: kept in the registry's log.
        approval: whether a person has to say yes, after the rules have; they have a week.
        root: the project's directory.

    Raises:
        PromotionRefused: the rules refuse. RegistryError: no such version, or it cannot be compared here.
    """
    root = root.resolve()
    found = examine(root, reference, alias)
    if found is None:
        return Promoted("Nothing new", f"{reference} has that alias already", "")
    version = found.challenger.reference
    if not found.decision.passed:
        raise PromotionRefused(f"{version} is not promoted\n{found.text}")
    if approval:
        answer = _ask(version, found.text)
        if not answer.approve:
            return Promoted("Declined", f"{answer.version}: {answer.by} says no: {answer.reason}", found.text)
        version, reason = answer.version, f"{reason}; approved by {answer.by}: {answer.reason}"
    done = commit(root, version, alias, reason)
    if done.written is None:
        return Promoted("Nothing new", f"{done.reference} has that alias already", found.text)
    return Promoted("Promoted", f"{done.name}@{done.written.alias} is now {done.reference}: {reason}", found.text)


def _ask(version: str, table: str) -> Approval:
    """Wait for a person's answer."""
    question = Approval.with_initial_data(description=f"```\n{table}\n```", version=version)
    if deployment.id is None:  # nobody would start it again
        return pause_flow_run(wait_for_input=question, timeout=WEEK, key="approval")
    return suspend_flow_run(wait_for_input=question, timeout=WEEK, key="approval")


@task(cache_policy=NO_CACHE, persist_result=False, **ATTEMPTS)
def examine(root: Path, reference: str, alias: str | None) -> stage.Examined | None:
    """Ask the rules, and make an artifact of what they say; None where the version has the alias already."""
    params = load_params(root / "params.yaml")
    if (alias or params.promotion.aliases[0]) in open_registry(params.registry, root).resolve(reference).aliases:
        return None
    found = stage.examine(params, Layout(root), reference, alias)
    create_markdown_artifact(f"```\n{found.text}\n```", key="promotion", description=found.challenger.reference)
    return found


@task(cache_policy=NO_CACHE, persist_result=False, **ATTEMPTS)
def commit(root: Path, reference: str, alias: str | None, reason: str) -> Version:
    """Ask the rules again, inside the commit, and move the alias."""
    return stage.promote(load_params(root / "params.yaml"), Layout(root), reference, alias, reason)


@click.command(help=(__doc__ or "").split("\n")[0])
@click.argument("reference")
@click.argument("alias", required=False)
@click.option("--reason", required=True, help="Kept in the registry's log.")
@click.option("--approval", is_flag=True, help="Wait for a person's yes, in the pages of the server that is named.")
@click.option("--root", default=".", type=click.Path(file_okay=False, path_type=Path), help="The project's directory.")
def main(reference: str, alias: str | None, reason: str, approval: bool, root: Path) -> None:
    with told():
        if approval and not PREFECT_API_URL.value():
            raise ConfigError("--approval needs a server with pages to answer in; set PREFECT_API_URL")
        with server():
            done = promote(reference, alias, reason, approval, root)
    click.echo(f"\n{done.summary}\n{done.reason}")


if __name__ == "__main__":
    main()
