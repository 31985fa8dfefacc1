"""Sets a Prefect server up: work pool, deployments, concurrency limit, automations. Run it again to change them.

python -m flows.deploy [--kind process|docker|kubernetes] [--trainings 1] [--notify slack-webhook/team]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import click
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.automations import lost_worker, notices, restart
from flows.blocks import Notice, place_block
from flows.command import told
from flows.tasks import CommandError
from flows.training_slot import LIMIT
from mixdpo.errors import ConfigError

POOL = "mixdpo"  # as in prefect.yaml
IMAGE_DIRECTORY = Path("/project")  # where the project is in a container
Kind = Literal["process", "docker", "kubernetes"]
State = Literal["created", "updated", "unchanged"]


@dataclass(frozen=True)
class Placed:
    """One thing on the server, and what was done about it."""

    what: str
    name: str
    state: str


def deploy(root: Path, kind: Kind, trainings: int, notify: Sequence[str], silence: timedelta) -> Iterator[Placed]:
    """Place everything, one thing after another; what is there as wanted already stays.

    Args:
        root: the checkout that has prefect.yaml.
        trainings: that may run at once, on all workers of this server together.
        notify: blocks KIND/NAME that trouble is told to.
        silence: after which a run without heartbeat is taken for lost.

    Raises:
        ConfigError: no server is named, a block is missing, or the pool is there with another kind.
        CommandError: Prefect refused the deployments.
    """
    if not PREFECT_API_URL.value():
        raise ConfigError("no server is named; set PREFECT_API_URL, as in http://127.0.0.1:4200/api")
    with get_client(sync_client=True) as client:
        blocks = [place_block(reference, client) for reference in notify]
        yield Placed("work pool", f"{POOL} ({kind})", _place_pool(client, kind))
        yield Placed("limit", f"{LIMIT}: {trainings}", _place_limit(client, trainings))
        before = _deployments(client)
        _place_deployments(root, root if kind == "process" else IMAGE_DIRECTORY)
        for name in sorted(_deployments(client)):
            yield Placed("deployment", name, "updated" if name in before else "created")
        for block in blocks:
            yield Placed("block", f"{block.kind}/{block.name}", block.state)
        for automation in _automations(blocks, silence):
            yield Placed("automation", automation.name, _place_automation(client, automation))


def _place_pool(client: SyncPrefectClient, kind: Kind) -> State:
    path = Path(__file__).parents[1] / "deploy" / kind / "job-template.json"
    template: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=POOL, type=kind, base_job_template=template))
        return "created"
    if pool.type != kind:
        raise ConfigError(
            f"the work pool {POOL} is there already, of type {pool.type}; name that type with --kind, or remove the "
            f"pool first (`prefect work-pool delete {POOL}`), and stop its workers"
        )
    if pool.base_job_template == template:
        return "unchanged"
    client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))
    return "updated"


def _place_limit(client: SyncPrefectClient, trainings: int) -> State:
    try:
        before = client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        before = None
    client.upsert_global_concurrency_limit_by_name(LIMIT, trainings)
    if before is None:
        return "created"
    return "unchanged" if before.limit == trainings else "updated"


def _deployments(client: SyncPrefectClient) -> set[str]:
    """Those of the pool, as FLOW/NAME."""
    flows = {flow.id: flow.name for flow in client.read_flows()}
    return {f"{flows[each.flow_id]}/{each.name}" for each in client.read_deployments() if each.work_pool_name == POOL}


def _place_deployments(root: Path, directory: Path) -> None:
    """Those of prefect.yaml, for workers that find the checkout at `directory`."""
    done = subprocess.run(
        (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"),
        cwd=root,
        # prefect.yaml asks for PWD
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PWD": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandError("prefect deploy --all", done.returncode, done.stdout.splitlines()[-20:])


def _automations(blocks: Sequence[Notice], silence: timedelta) -> list[Automation]:
    wanted = [lost_worker(silence), restart()]
    if blocks:
        webhooks, others = ([each.block for each in blocks if each.webhook is kind] for kind in (True, False))
        wanted.append(notices(webhooks, others))
    return wanted


def _place_automation(client: SyncPrefectClient, wanted: Automation) -> State:
    core = _core(wanted)
    before = client.read_automations_by_name(wanted.name)
    if not before:
        client.create_automation(core)
        return "created"
    if _core(before[0]) == core:
        return "unchanged"
    client.update_automation(before[0].id, core)
    return "updated"


def _core(automation: AutomationCore) -> AutomationCore:
    """What of it can be changed."""
    return AutomationCore(**automation.model_dump(exclude={"id", "owner_resource"}))


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option(
    "--kind", default="process", show_default=True, type=click.Choice(get_args(Kind)), help="Of the work pool."
)
@click.option(
    "--trainings", default=1, show_default=True, type=click.IntRange(1), help="At once, on all workers together."
)
@click.option("--notify", multiple=True, metavar="KIND/NAME", help="Block that trouble is told to; may be repeated.")
@click.option(
    "--silence", default=90, show_default=True, type=click.IntRange(10), help="Seconds without heartbeat, then lost."
)
@click.option("--root", default=".", type=click.Path(file_okay=False, path_type=Path), help="The project's directory.")
def main(kind: Kind, trainings: int, notify: tuple[str, ...], silence: int, root: Path) -> None:
    with told():
        for placed in deploy(root.resolve(), kind, trainings, notify, timedelta(seconds=silence)):
            click.echo(f"{placed.what:<11} {placed.name:<32} {placed.state}")


if __name__ == "__main__":
    main()
