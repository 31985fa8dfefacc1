"""One command sets a real server up, and again changes nothing; what it set up does what it is for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextvars import copy_context
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed, Running
from prefect.utilities.templating import apply_values, find_placeholders

from flows.arrived import main as arrived
from flows.automations import TAG
from flows.deploy import deploy, main
from flows.training_slot import LIMIT, training_slot
from mixdpo.errors import ConfigError
from mixdpo.studies.catalogue import MODULES

from .test_process import until

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "deploy").glob("*/job-template.json"))


class Hook(HTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Keep)
        self.told: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret-path"


class Keep(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Hook)
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server_set_up(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What a second go says of each thing, after a first one; no run is left for a worker."""
    monkeypatch.setenv("MIXDPO_WEBHOOK_URL", hook.url)
    silence = timedelta(seconds=10)
    list(deploy(ROOT, "process", trainings=1, notify=["webhook/team"], silence=silence))
    monkeypatch.delenv("MIXDPO_WEBHOOK_URL")
    again = list(deploy(ROOT, "process", trainings=1, notify=["webhook/team"], silence=silence))
    assert hook.url not in str(again)
    yield {f"{each.what} {each.name}": each.state for each in again}
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(limit=200):
            client.delete_flow_run(run.id)


def new_run() -> FlowRun:
    """A run that nobody has taken: nothing of it is done."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/weekly")
        return client.create_flow_run_from_deployment(deployment.id)


def state_of(run: FlowRun) -> str | None:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state_name


@pytest.mark.slow
@pytest.mark.usefixtures("team_server")
def test_a_server_is_set_up_once_and_does_what_it_is_set_up_for(server_set_up: dict[str, str], hook: Hook) -> None:
    unchanged = {name: state for name, state in server_set_up.items() if not name.startswith("deployment")}
    assert set(unchanged.values()) == {"unchanged"}
    assert {"work pool mixdpo (process)", f"limit {LIMIT}: 1", "block webhook/team"} < set(unchanged)
    deployments_are_as_in_prefect_yaml()
    a_run_of_new_data_is_started_by_an_event()
    trouble_is_told(hook)
    a_run_without_heartbeat_is_taken_for_crashed(hook)
    one_training_waits_for_another()


def deployments_are_as_in_prefect_yaml() -> None:
    with get_client(sync_client=True) as client:
        names = ("retrain/weekly", "check-data/nightly", "study/on-demand", "promote/on-demand")
        weekly, nightly, study, promote = (client.read_deployment_by_name(name) for name in names)
    assert weekly.work_pool_name == "mixdpo"
    assert [schedule.schedule.cron for schedule in weekly.schedules] == ["0 3 * * 1"]  # type: ignore[union-attr]
    for each in (weekly, nightly, study, promote):
        assert each.global_concurrency_limit is not None
        assert each.global_concurrency_limit.limit == 1
        assert each.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    # what the pages offer people who start a run by hand
    shown = weekly.parameter_openapi_schema["properties"]
    assert (shown["workers"]["minimum"], shown["workers"]["description"]) == (1, "stages run side by side at most.")
    assert study.parameter_openapi_schema["properties"]["name"]["enum"] == [*MODULES]
    assert promote.parameter_openapi_schema["required"] == ["reference"]
    assert all(
        field.get("description") for each in (weekly, nightly, study, promote) for field in schema(each).values()
    )


def schema(deployment: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = deployment.parameter_openapi_schema["properties"]
    return found


def runs_of_weekly() -> int:
    """Those that no schedule made."""
    with get_client(sync_client=True) as client:
        weekly = client.read_deployment_by_name("retrain/weekly")
        of_weekly = DeploymentFilter(id=DeploymentFilterId(any_=[weekly.id]))
        runs = client.read_flow_runs(deployment_filter=of_weekly, limit=200)
    return sum(not run.auto_scheduled for run in runs)


def a_run_of_new_data_is_started_by_an_event() -> None:
    before = runs_of_weekly()

    def started() -> bool:
        # again and again: the server may not have read yet what was deployed a moment ago
        told = CliRunner().invoke(arrived, ["reviews of November"])
        assert told.exit_code == 0, told.output
        return until(lambda: runs_of_weekly() > before, seconds=10)

    assert until(started, seconds=90)


def trouble_is_told(hook: Hook) -> None:
    run = new_run()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Failed(name="Refused", message='too many "bad" rows'), force=True)
    assert until(lambda: any(each["id"] == str(run.id) for each in hook.told), seconds=60)
    [told] = [each for each in hook.told if each["id"] == str(run.id)]
    assert (told["flow"], told["state"], told["message"]) == ("retrain", "Refused", 'too many "bad" rows')


def a_run_without_heartbeat_is_taken_for_crashed(hook: Hook) -> None:
    run = new_run()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Running(), force=True)
    beat = {"prefect.resource.id": f"prefect.flow-run.{run.id}"}
    tag = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
    emit_event("prefect.flow-run.heartbeat", resource=beat, related=[tag])
    assert until(lambda: state_of(run) == "Crashed", seconds=90)
    assert until(lambda: any(each["id"] == str(run.id) for each in hook.told), seconds=60)


def one_training_waits_for_another() -> None:
    entered = threading.Event()

    def second() -> None:
        with training_slot():
            entered.set()

    with training_slot():
        thread = threading.Thread(target=copy_context().run, args=(second,))  # with the server's address
        thread.start()
        assert not entered.wait(3)
    assert entered.wait(60)
    thread.join()


@pytest.mark.usefixtures("prefect_server")
def test_without_a_limit_nothing_is_waited_for() -> None:
    with training_slot(), training_slot():
        pass


@pytest.mark.usefixtures("prefect_server")
def test_a_block_that_is_not_there_is_told_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match="the server has no block slack-webhook/team: set MIXDPO_SLACK_URL, or make"):
        list(deploy(ROOT, "process", trainings=1, notify=["slack-webhook/team"], silence=timedelta(seconds=90)))
    with pytest.raises(ConfigError, match="--notify team: expected KIND/NAME, as in webhook/team"):
        list(deploy(ROOT, "process", trainings=1, notify=["team"], silence=timedelta(seconds=90)))
    with get_client(sync_client=True) as client:
        assert [pool.name for pool in client.read_work_pools() if pool.name == "mixdpo"] == []


def test_a_server_has_to_be_named() -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "set PREFECT_API_URL" in result.output


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.parent.name)
def test_a_job_template_has_a_variable_for_each_of_its_places(path: Path) -> None:
    template = json.loads(path.read_text(encoding="utf-8"))
    variables = template["variables"]["properties"]
    asked = {each.name for each in find_placeholders(template["job_configuration"])}
    assert asked == set(variables)
    defaults = {name: each["default"] for name, each in variables.items() if "default" in each}
    filled = json.dumps(apply_values(template["job_configuration"], defaults))
    # the silence after which a run is taken for lost is longer than that
    assert '"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"' in filled
    special = {"process": "", "docker": "NVIDIA_VISIBLE_DEVICES", "kubernetes": '"nvidia.com/gpu": 1'}
    assert special[path.parent.name] in filled


@pytest.mark.usefixtures("team_server")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.parent.name)
def test_a_server_takes_the_job_template(path: Path) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate

    kind = path.parent.name
    with get_client(sync_client=True) as client:
        template = json.loads(path.read_text(encoding="utf-8"))
        made = client.create_work_pool(WorkPoolCreate(name=f"of-{kind}", type=kind, base_job_template=template))
        assert made.base_job_template == template
