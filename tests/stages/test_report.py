from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mixdpo.config import Params
from mixdpo.errors import DataError
from mixdpo.files import directory_digest, file_digest, read_json, write_json
from mixdpo.layout import Layout
from mixdpo.stages import evaluate
from mixdpo.stages.report import run


@pytest.fixture(scope="module")
def project(toy_params: Params, toy_project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The toy project, evaluated and reported."""
    layout = Layout(tmp_path_factory.mktemp("reported") / "project")
    shutil.copytree(toy_project.root, layout.root)
    evaluate.run(toy_params, layout)
    reports = layout.reports
    assert run(toy_params, layout) == [reports / "index.html", reports / "report.md", reports / "figures"]
    return layout


def test_the_report_has_every_part(project: Layout) -> None:
    page = (project.reports / "index.html").read_text(encoding="utf-8")
    text = (project.reports / "report.md").read_text(encoding="utf-8")
    for title in (
        *("Who is served", "Held-out preferences", "Rewards by held-out judges", "Specialisation", "What it cost"),
        *("Truth", "Training", "Reward models", "Validation", "Examples"),
    ):
        assert f"<h2>{title}</h2>" in page
        assert f"\n## {title}\n" in text
    assert 'href="validation-scores.html"' in page
    assert {path.name for path in (project.reports / "figures").iterdir()} == {
        *("rewards.png", "frontier.png", "few-shot.png", "styles.png", "training.png"),
        *("responsibilities.png", "annotators.png", "routing.png"),
    }


def test_the_same_again_is_the_same_bytes(toy_params: Params, project: Layout) -> None:
    before = directory_digest(project.reports)
    run(toy_params, project)
    assert directory_digest(project.reports) == before


def test_what_is_missing_or_of_another_schema_is_named_and_the_last_report_stays(
    toy_params: Params, project: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "project")
    shutil.copytree(project.root, layout.root)
    before = file_digest(layout.reports / "index.html")
    metrics = read_json(layout.metrics("evaluation"))
    write_json(layout.metrics("evaluation"), {**metrics, "schema": 2})
    with pytest.raises(DataError, match=r"evaluation.json has schema 2, expected 1; run `mixdpo evaluate` again"):
        run(toy_params, layout)
    write_json(layout.metrics("evaluation"), metrics)
    layout.metrics("rewards").unlink()
    with pytest.raises(DataError, match=r"rewards.json does not exist; run the stage that writes it first"):
        run(toy_params, layout)
    layout.training_curve("moe").unlink()
    write_json(layout.metrics("rewards"), read_json(project.metrics("rewards")))
    with pytest.raises(DataError, match=r"train-moe.csv does not exist; run the stage that writes it first"):
        run(toy_params, layout)
    assert file_digest(layout.reports / "index.html") == before
    assert not list(layout.reports.glob(".*"))
