"""Promotion through Prefect: rules, then a person who is shown what they say, then the log."""

from __future__ import annotations

import threading
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_runs import resume_flow_run

from flows.deploy import deploy
from flows.promote import Promoted, promote
from mixdpo.config import load_params
from mixdpo.errors import PromotionRefused
from mixdpo.files import write_json
from mixdpo.layout import Layout
from mixdpo.registry import Registry
from mixdpo.stages.register import register

from .test_process import until

pytestmark = pytest.mark.usefixtures("prefect_server")
ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "profiles" / "demo.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project after its run, as far as registration and the first promotion look at it; reviews@v1 is in staging."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout = Layout(tmp_path / "project")
    layout.root.mkdir()
    values = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    values["registry"] |= {"url": "registry", "name": "reviews", "policy": "moe", "alias": "staging"}
    (layout.root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    write_policy(layout, 1)
    for name in ("evaluation", "train-moe", "validation-reviews", "validation-scores", "validation-preferences"):
        write_json(layout.metrics(name), {"schema": 1, "findings": [], "passed": True, "expectations": []})
    register(load_params(layout.root / "params.yaml"), layout, "the first")
    return layout


def write_policy(layout: Layout, number: int) -> None:
    write_json(layout.policy("moe") / "mixture.json", {"schema": 1, "number": number})


def target(layout: Layout, alias: str = "production") -> str | None:
    return Registry(layout.root / "registry").history("reviews").target(alias)


def waiting() -> FlowRun | None:
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(limit=5, sort="START_TIME_DESC")  # type: ignore[arg-type]
    return next((run for run in runs if run.state is not None and run.state.is_paused()), None)


def test_without_a_person_the_rules_alone_decide(project: Layout) -> None:
    done = promote("reviews@staging", reason="weekly", root=project.root)
    assert (done.outcome, done.reason) == ("Promoted", "reviews@production is now reviews@v1: weekly")
    assert target(project) is not None
    again = promote("reviews@staging", root=project.root)
    assert (again.outcome, again.reason) == ("Nothing new", "reviews@staging has that alias already")
    assert len(Registry(project.root / "registry").history("reviews").entries) == 2


def test_what_the_rules_refuse_nobody_is_asked_about(project: Layout) -> None:
    write_json(project.metrics("validation-scores"), {"schema": 1, "passed": False, "expectations": []})
    write_policy(project, 2)
    register(load_params(project.root / "params.yaml"), project, "with bad scores")
    with pytest.raises(PromotionRefused, match="reviews@v2 is not promoted"):
        promote("reviews@staging", approval=True, root=project.root)
    assert target(project) is None


@pytest.mark.parametrize("approve", [True, False])
def test_a_person_decides_on_what_they_were_shown(project: Layout, approve: bool) -> None:
    done: list[Promoted] = []
    thread = threading.Thread(
        target=copy_context().run,
        args=(lambda: done.append(promote("reviews@staging", reason="weekly", approval=True, root=project.root)),),
    )
    thread.start()
    assert until(lambda: waiting() is not None, seconds=60)
    # meanwhile the alias moves on to something that nobody has looked at
    write_policy(project, 2)
    register(load_params(project.root / "params.yaml"), project, "newer")
    run = waiting()
    assert run is not None
    answer = {"version": "reviews@v1", "approve": approve, "by": "A. Smith", "reason": "reads well"}
    resume_flow_run(run.id, run_input=answer)
    thread.join(60)
    [promoted] = done
    history = Registry(project.root / "registry").history("reviews")
    if approve:
        assert promoted.outcome == "Promoted"
        assert Registry(project.root / "registry").resolve("reviews@production").number == 1
        assert history.entries[-1].reason == "weekly; approved by A. Smith: reads well"
    else:
        assert (promoted.outcome, promoted.reason) == ("Declined", "reviews@v1: A. Smith says no: reads well")
        assert target(project) is None


@pytest.mark.slow
def test_a_run_of_a_deployment_waits_without_a_worker_and_goes_on_with_the_answer(
    project: Layout, team_server: str, worker: Path
) -> None:
    assert team_server
    list(deploy(ROOT, "process", trainings=1, notify=(), silence=timedelta(seconds=90)))
    asked = {"reference": "reviews@staging", "reason": "weekly", "approval": True, "root": str(project.root)}
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("promote/on-demand")
        run = client.create_flow_run_from_deployment(deployment.id, parameters=asked).id
    assert until(lambda: waiting() is not None, seconds=120), worker.read_text()
    assert until(lambda: "is paused" in worker.read_text(), seconds=30), worker.read_text()
    resume_flow_run(run, run_input={"version": "reviews@v1", "approve": True, "by": "A. Smith", "reason": "reads well"})

    def ended() -> FlowRun | None:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(run)
        return found if found.state is not None and found.state.is_final() else None

    assert until(lambda: ended() is not None, seconds=120), worker.read_text()
    done = ended()
    assert done is not None
    assert (done.state_name, target(project) is not None) == ("Promoted", True), worker.read_text()
