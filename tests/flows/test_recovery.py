"""kill -9 in the middle of training under a Prefect worker: the run starts again and gives what it would have given."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from flows.deploy import deploy
from mixdpo.config import Params, parse_params
from mixdpo.layout import Layout
from mixdpo.registry import Registry
from mixdpo.stages import evaluate, report, train

from ..stages.conftest import toy_params, toy_project, with_reference  # noqa: F401, TID252 (no package; fixtures)
from .test_process import alive, until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

# writes down each step that it takes, and stops in the middle as long as nobody has been killed
STAGE = """
import os, sys, time
from pathlib import Path
from mixdpo.cli import main
from mixdpo.training.run import Run

usual = Run.step

def step(run, number):
    if number == 7 and not Path("killed").exists():
        Path("pid").write_text(str(os.getpid()))
        time.sleep(300)
    with Path("steps").open("a") as file:
        file.write(f"{number}\\n")
    return usual(run, number)

Run.step = step
main(["train", "mix"])
"""
GRAPH = {
    "stages": {
        "train-mix": {
            "cmd": f"{sys.executable} stage.py",
            "deps": ["data/validated/preferences.parquet", "data/reference", "data/sft"],
            "params": ["seed", "training", "policies.mix"],
            "outs": ["data/policies/mix"],
            "metrics": [{"metrics/train-mix.json": {"cache": False}}],
            "plots": [{"plots/train-mix.csv": {"cache": False}}],
        }
    }
}


@pytest.fixture(scope="module")
def params(toy_params: Params) -> Params:  # noqa: F811
    values = toy_params.model_dump(mode="json", by_alias=True)
    values["training"] |= {"batch_pairs": 4, "epochs": 3, "evaluate_every": 4, "checkpoint_every": 2}
    values["registry"] |= {"url": "registry", "policy": "mix"}
    return parse_params(values)


@pytest.fixture(scope="module")
def project(
    params: Params,
    toy_project: Layout,  # noqa: F811
    with_reference: Callable[..., Layout],  # noqa: F811
    empty_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Layout:
    """A checkout in which all but the training of one policy has been done."""
    root = Path(shutil.copytree(empty_repository, tmp_path_factory.mktemp("recovery") / "project"))
    layout = with_reference(root, lambda name: {"test-4": "validation", "test-5": "test"}.get(name, "train"))
    for name in ("rewards", "policies", "validated"):
        shutil.copytree(toy_project.data / name, layout.data / name, dirs_exist_ok=True, ignore=_but_scores(name))
    for name in ("metrics", "plots"):
        shutil.copytree(toy_project.root / name, root / name, dirs_exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)), encoding="utf-8")
    evaluate.run(params, layout)
    report.run(params, layout)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    (root / "stage.py").write_text(STAGE, encoding="utf-8")
    (root / "dvc.yaml").write_text(yaml.safe_dump(GRAPH), encoding="utf-8")
    shutil.rmtree(layout.policy("mix"))
    return layout


def _but_scores(name: str) -> Callable[[str, list[str]], list[str]]:
    return lambda _, files: [each for each in files if name == "validated" and not each.startswith("scores")]


def flow_above(process: int) -> int:
    """The process of the flow run that a stage belongs to."""
    while b"\0-m\0prefect" not in Path(f"/proc/{process}/cmdline").read_bytes():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process


def read(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def test_a_run_that_is_killed_starts_again_and_gives_the_same(
    project: Layout, params: Params, worker: Path, tmp_path: Path
) -> None:
    never_killed = Layout(Path(shutil.copytree(project.root, tmp_path / "never-killed")))
    train.run(params, never_killed, "mix")

    # the slot of a killed run is free again after a minute: the run that takes its place gets another one
    list(deploy(ROOT, "process", trainings=2, notify=(), silence=timedelta(seconds=90)))
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("retrain/weekly")
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"root": str(project.root)}).id

    def ended() -> bool:
        state = read(run).state
        return state is not None and state.is_final() and state.name != "Crashed"

    assert until(lambda: (project.root / "pid").exists() or ended(), seconds=180)
    assert (project.root / "pid").exists(), worker.read_text()
    stage = int((project.root / "pid").read_text())
    flow = flow_above(stage)
    (project.root / "killed").touch()
    os.kill(flow, signal.SIGKILL)
    os.kill(stage, signal.SIGKILL)
    assert until(lambda: not alive(stage), seconds=15)
    registry = Registry(project.root / "registry")
    assert registry.names() == []  # nothing half-published

    assert until(ended, seconds=240), worker.read_text()
    done = read(run)
    assert done.state is not None
    assert (done.state.name, done.run_count) == ("Registered", 2), done.state.message
    assert str(done.state.message) == f"{params.registry.name}@v1 ({params.registry.alias}); stages: 1 ran"
    # it went on from the checkpoint after the sixth step
    assert [int(step) for step in (project.root / "steps").read_text().split()] == [*range(7), *range(6, 12)]
    for path in ("metrics/train-mix.json", "plots/train-mix.csv"):
        assert (project.root / path).read_bytes() == (never_killed.root / path).read_bytes()
    policies = [layout.policy("mix") for layout in (project, never_killed)]
    assert [file.name for file in sorted(policies[0].rglob("*"))] == [
        file.name for file in sorted(policies[1].rglob("*"))
    ]
    for file in (file for file in policies[0].rglob("*") if file.is_file()):
        assert file.read_bytes() == (policies[1] / file.relative_to(policies[0])).read_bytes(), file
    assert len(registry.history(params.registry.name).entries) == 1
    assert list(project.root.rglob("*.part")) == []
