"""A schedule in small: real data stages, real Prefect, a real registry; training alone is a stand-in of one second."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client

from flows.check import check_data
from flows.retrain import Retrained, retrain
from mixdpo.data.embedded import generate_reviews
from mixdpo.errors import ValidationStop
from mixdpo.files import directory_digest
from mixdpo.registry import Registry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    # pygtrie, which DVC uses, warns of its own future
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]
OURS = ("prepare", "validate-reviews", "describe-reviews")
COLUMNS = {"text": "text", "label": "label", "stars": "stars", "user": None, "metadata": []}
SETS = [
    {"domain": domain, "paths": [f"arrivals/*/{domain}/*"], "columns": COLUMNS, "labels": None, "limit": None}
    for domain in ("movie", "book")
]
STAND_INS = """
  describe-preferences:
    cmd: python train.py profile
    deps: [data/validated/reviews.parquet]
    metrics: [metrics/profile-preferences.json: {cache: false}]
  train:
    cmd: python train.py policy
    deps: [data/validated/reviews.parquet]
    outs: [data/policies/dpo, reports/report.md, reports/index.html]
    metrics: [metrics/evaluation.json: {cache: false}]
"""
TRAIN = """
import hashlib, json, pathlib, sys
def write(path, text):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(text)
data = hashlib.sha256(pathlib.Path("data/validated/reviews.parquet").read_bytes()).hexdigest()
if sys.argv[1] == "profile":
    write("metrics/profile-preferences.json", json.dumps({"schema": 1, "tables": {}}))
else:
    write("data/policies/dpo/mixture.json", json.dumps({"schema": 1, "trained_on": data}))
    policy = {"experts": 1, "preference": None, "specialisation": None, "rewards": {"judge": {}}}
    metrics = {"schema": 1, "dimensions": [], "policies": {"dpo": policy}, "styles": {}}
    write("metrics/evaluation.json", json.dumps(metrics))
    write("reports/report.md", "# Report")
    write("reports/index.html", "<p>Report</p>")
"""


@dataclass(frozen=True)
class Project:
    root: Path

    def land(self, name: str, reviews: int, only: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        for row in generate_reviews(reviews, 20, seed=reviews):
            path = self.root / "landing" / str(row["domain"]) / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            if only(row):
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"text": row["text"], "label": row["label"], "stars": row["stars"]}) + "\n")

    def taken(self) -> str:
        return directory_digest(self.root / "data" / "external")


@pytest.fixture
def project(new_repository: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = new_repository()
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    ours = {name: {**stages[name], "deps": _data_alone(stages[name]["deps"])} for name in OURS}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {**ours, **yaml.safe_load(STAND_INS)}}))
    (root / "train.py").write_text(TRAIN)
    values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    values["source"] = {"kind": "files", "sets": SETS}
    values["arrivals"] = {"url": "landing", "settle_seconds": 0, "bad": "refuse"}
    values["drift"] = {"against": "staging", "warn": 0.1, "refuse": 0.25}
    values["registry"] |= {"url": str(tmp_path / "registry"), "policy": "dpo", "refuse": []}
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (root / "data" / "external").mkdir(parents=True)
    (root / "landing").mkdir()
    # what the stages call is this checkout, wherever the command was installed from
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return Project(root)


def _data_alone(dependencies: list[str]) -> list[str]:
    return [each for each in dependencies if not each.startswith("mixdpo/")]


def states(flow: str) -> list[tuple[str, str]]:
    """Name and message of the states in which this flow's runs ended, the oldest first, as `prefect flow-run ls`."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort="START_TIME_ASC")  # type: ignore[arg-type]
        flows = {run.id: client.read_flow(run.flow_id).name for run in runs}
    return [(str(run.state.name), str(run.state.message)) for run in runs if run.state and flows[run.id] == flow]


def run(project: Project) -> Retrained:
    return retrain(root=project.root, workers=1)


def test_new_data_registers_nothing_new_skips_bad_data_refuses(project: Project, tmp_path: Path) -> None:
    before = len(states("retrain"))
    project.land("week-1", 240)
    run(project)
    values = (project.root / "params.yaml").read_text(encoding="utf-8")
    # to go on from a version is for new data: each version would lead to a next one
    idle = retrain(root=project.root, workers=1, warm_start="reviews@staging")
    assert (project.root / "params.yaml").read_text(encoding="utf-8") == values
    assert {stage.outcome for stage in idle.stages} == {"unchanged"}
    assert "Nothing new: no stage of 5 is stale" in idle.summary

    taken = project.taken()
    (project.root / "landing" / "book" / "week-2.jsonl").write_text('{"text": "cut off')
    for flow in (run, lambda project: check_data(root=project.root)):
        with pytest.raises(ValidationStop, match=r"because of bad files:\n  book/week-2.jsonl: row 1 of"):
            flow(project)
    assert project.taken() == taken

    registered, skipped, refused = states("retrain")[before:]
    assert registered[0] == "Registered"
    assert registered[1].startswith("reviews@v1 (staging); stages: 5 ran; arrivals: 2 new files of 240 rows, 0 known")
    assert skipped[0] == "Nothing new"
    assert skipped[1].startswith("reviews@v1 (staging) has the same content already; stages: 5 unchanged; arrivals: no")
    assert refused[0] == "Refused"
    assert "book/week-2.jsonl: row 1 of book/week-2.jsonl is not JSON" in refused[1]
    assert len(Registry(tmp_path / "registry").history("reviews").entries) == 1

    # the file is mended, but its reviews are all bad ones of books: nothing is trained on them
    (project.root / "landing" / "book" / "week-2.jsonl").unlink()
    project.land("week-3", 1200, only=lambda row: row["label"] == 0 and row["domain"] == "book")
    policy = directory_digest(project.root / "data" / "policies")
    with pytest.raises(ValidationStop) as checked:
        check_data(root=project.root)
    assert project.taken() == taken
    with pytest.raises(ValidationStop) as caught:
        run(project)
    assert str(caught.value) == str(checked.value)
    assert "the data drifted from those of reviews@v1 (staging) beyond drift.refuse:" in str(caught.value)
    assert "reviews.label: kl" in str(caught.value)
    assert directory_digest(project.root / "data" / "policies") == policy
    assert states("retrain")[-1] == ("Refused", str(caught.value))
