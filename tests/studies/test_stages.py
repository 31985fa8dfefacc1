"""studies/dvc.yaml says what the studies, their parameters, the layout and the imports say."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixdpo.cli import main
from mixdpo.config import load_params
from mixdpo.layout import Layout
from mixdpo.studies.catalogue import MODULES

ROOT = Path(__file__).parents[2]
STAGE: dict[str, Any] = yaml.safe_load((ROOT / "studies" / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["study"]
# what hardly decides a result and everything uses; a change here is no reason to train again
PLUMBING = ("config", "layout", "errors", "files", "progress", "compute", "data.schema")


def paths(kind: str, name: str) -> set[Path]:
    entries = (next(iter(entry)) if isinstance(entry, dict) else entry for entry in STAGE[kind])
    return {Path(entry.replace("${item.name}", name)) for entry in entries}


def test_there_is_a_stage_and_a_section_for_every_study() -> None:
    params = yaml.safe_load((ROOT / "studies" / "params.yaml").read_text(encoding="utf-8"))
    assert STAGE["matrix"]["name"] == list(MODULES)
    assert set(params) == {"base", *MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_outputs_are_where_the_layout_puts_them(name: str) -> None:
    place = Layout(Path()).study(name)
    found = paths("outs", name) | paths("metrics", name) | paths("plots", name)
    assert found == {place / file for file in ("table.md", "rows.csv", "summary.json", "figure.png")}


@pytest.mark.parametrize("name", MODULES)
def test_the_command_is_a_verb_with_arguments_that_it_takes(name: str) -> None:
    program, *words = STAGE["cmd"].replace("${item.name}", name).split()
    assert program == "mixdpo"
    assert words[:2] == ["study", "run"]
    main.commands["study"].commands["run"].make_context("run", words[2:])  # type: ignore[attr-defined]


def test_parameters_are_sections_of_the_files() -> None:
    values = load_params(ROOT / "params.yaml").model_dump()
    assert all(entry in values for entry in STAGE["params"] if isinstance(entry, str))
    assert STAGE["params"][-1] == {"studies/params.yaml": ["base", "${item.name}"]}


def test_code_that_studies_use_is_among_the_dependencies() -> None:
    """Else DVC calls a study up to date that would now find something else."""
    given = [Path(path) for path in STAGE["deps"]]
    for path in (ROOT / "mixdpo" / "studies").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("mixdpo."):
                continue
            module = (node.module or "").removeprefix("mixdpo.")
            if not module.startswith(PLUMBING):
                used = Path("mixdpo", *module.split("."))
                assert any(used.with_suffix(".py").is_relative_to(each) or used == each for each in given), module
