"""The nightly check meets what the next run would meet, and touches nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventNameFilter

from flows.check import WARNED, check_data
from mixdpo.data.embedded import generate_reviews
from mixdpo.errors import DataError
from mixdpo.files import directory_digest
from mixdpo.layout import Layout

from .test_process import until

pytestmark = pytest.mark.usefixtures("prefect_server")
DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"


def lines(seed: int) -> str:
    rows = generate_reviews(240, 20, seed)
    return "".join(json.dumps({"text": row["text"], "label": row["label"]}) + "\n" for row in rows)


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    root = tmp_path / "project"
    (root / "data" / "external").mkdir(parents=True)
    (root / "data" / "external" / "old.jsonl").write_text(lines(0))
    (root / "landing" / "books").mkdir(parents=True)
    (root / "landing" / "books" / "new.jsonl").write_text(lines(1))
    values: dict[str, Any] = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    columns = {"text": "text", "label": "label", "stars": None, "user": None, "metadata": []}
    part = {"domain": "book", "paths": ["old.jsonl", "arrivals/*/books/*"], "columns": columns, "labels": None}
    values["source"] = {"kind": "files", "sets": [{**part, "limit": None}]}
    values["arrivals"] = {"url": "landing", "settle_seconds": 0, "bad": "quarantine"}
    values["drift"] = {"against": "staging", "warn": 0.1, "refuse": None}
    values["registry"]["url"] = "registry"
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return Layout(root)


def warned() -> bool:
    with get_client(sync_client=True) as client:
        only = EventFilter(event=EventNameFilter(name=[WARNED]))
        return client.read_events(filter=only, limit=1).events != []


def test_what_landed_is_read_with_the_rest_and_not_taken(project: Layout) -> None:
    before = directory_digest(project.data)
    checked = check_data(root=project.root)
    assert checked.outcome == "Clean"
    assert checked.reason == "1 new file of 240 rows, 0 known; reviews: not compared: there is no reviews@staging yet"
    assert directory_digest(project.data) == before
    rehearsed = Layout(project.check)
    metrics = json.loads(rehearsed.metrics("prepare").read_text())
    assert metrics["rows_in"] == 480
    assert not (project.check / "inputs").exists()

    (project.root / "landing" / "books" / "bad.jsonl").write_text("{")
    checked = check_data(root=project.root)
    assert checked.outcome == "Warned"
    assert checked.warnings[0].startswith("books/bad.jsonl is bad: row 1 of books/bad.jsonl is not JSON")
    assert until(warned)
    assert directory_digest(project.data) == before


def test_what_stops_the_next_run_stops_the_check(project: Layout) -> None:
    (project.root / "data" / "external" / "old.jsonl").write_text('{"words": ""}\n')
    with pytest.raises(DataError, match="has no columns text, label"):
        check_data(root=project.root)
