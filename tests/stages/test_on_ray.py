"""Stages write the same bytes whether their shards run here or on a Ray worker."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from mixdpo.config import Params
from mixdpo.config.engine import RayEngine
from mixdpo.data.embedded import generate_reviews
from mixdpo.data.schema import CANDIDATES, REVIEWS, read_table, text_id, write_table
from mixdpo.files import directory_digest
from mixdpo.layout import Layout
from mixdpo.stages import annotate, candidates, evaluate

if TYPE_CHECKING:
    from mixdpo.engine.crew import Crew

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """One worker for all stages: what it costs is to import torch and transformers."""
    from mixdpo.engine.crew import Crew

    settings = RayEngine(kind="ray", cpus=1, workers=1)
    with closing(Crew(settings, tmp_path_factory.mktemp("crew") / "sign")) as crew:
        yield crew


@pytest.fixture
def layout(toy_project: Layout, tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "project")
    shutil.copytree(toy_project.root, layout.root)
    splits = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    rows = [
        {"review_id": text_id(review["text"]), "text": review["text"], "domain": "book", "split": split}
        for review, split in zip(generate_reviews(40, 10, seed=0), splits, strict=True)
    ]
    write_table(layout.validated("reviews"), rows, REVIEWS)
    write_table(layout.candidates, read_table(layout.validated("scores")), CANDIDATES)
    return layout


@pytest.mark.parametrize("stage", [candidates, annotate, evaluate], ids=lambda stage: stage.__name__.rpartition(".")[2])
def test_a_stage_on_ray_writes_what_it_writes_here(
    stage: ModuleType, toy_params: Params, layout: Layout, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = stage.run(toy_params, layout)
    here = [_digest(path) for path in outputs]
    monkeypatch.setattr(stage, "open_engine", lambda *_: nullcontext(crew))
    assert stage.run(toy_params, layout) == outputs
    assert [_digest(path) for path in outputs] == here


def _digest(path: Path) -> str:
    return directory_digest(path if path.is_dir() else path.parent, "*" if path.is_dir() else path.name)
