"""dvc.yaml says what the command line, the parameters, the layout and the imports say."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.graph import read_graph
from mixdpo.cli import main
from mixdpo.config import load_params
from mixdpo.layout import PROFILES, TABLES, Layout

ROOT = Path(__file__).parents[1]
POLICIES = ("dpo", "mix", "moe")
PARAMETER_FILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]

# what hardly decides a result and everything uses; a change here is no reason to train again
# (what comes out of the registry is compared with its digest)
PLUMBING = ("config", "engine", "layout", "errors", "files", "progress", "compute", "data.schema", "registry")


def expanded() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml, matrix and variables filled in, by the names that DVC gives them."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    found: dict[str, dict[str, Any]] = {}
    for name, stage in stages.items():
        for policy in stage.get("matrix", {}).get("policy", [None]):
            text = yaml.safe_dump(stage).replace("${item.policy}", str(policy))
            found[f"{name}@{policy}" if policy else name] = yaml.safe_load(text)
    return found


STAGES = expanded()


def paths(entries: list[Any]) -> set[str]:
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


def produced(stage: dict[str, Any]) -> set[str]:
    return set().union(*(paths(stage.get(kind, [])) for kind in ("outs", "metrics", "plots")))


def expected_outputs() -> dict[str, set[Path]]:
    here = Layout(Path())
    validations = {
        f"validate-{table}": {
            here.validated(table),
            here.quarantine(table),
            here.validation_page(table),
            here.metrics(f"validation-{table}"),
        }
        for table in TABLES
    }
    trainings = {
        f"train@{name}": {here.policy(name), here.metrics(f"train-{name}"), here.training_curve(name)}
        for name in POLICIES
    }
    return {
        "prepare": {here.prepared_reviews, here.metrics("prepare")},
        **{f"describe-{part}": {here.profile(part)} for part in PROFILES},
        "rewards": {here.rewards, here.metrics("rewards")},
        "sft": {here.sft, here.metrics("sft")},
        "candidates": {here.candidates, here.metrics("candidates")},
        "annotate": {here.annotated_scores},
        "preferences": {here.labelled_preferences, here.metrics("preferences")},
        "reference": {here.reference, here.metrics("reference")},
        "evaluate": {here.evaluation, here.metrics("evaluation")},
        "report": {here.reports / "index.html", here.reports / "report.md", here.reports / "figures"},
        **validations,
        **trainings,
    }


def test_outputs_are_where_the_layout_puts_them() -> None:
    found = {name: {Path(path) for path in produced(stage)} for name, stage in STAGES.items()}
    assert found == expected_outputs()


@pytest.mark.parametrize("name", STAGES)
def test_command_is_a_verb_with_arguments_that_it_takes(name: str) -> None:
    program, verb, *arguments = STAGES[name]["cmd"].split()
    assert program == "mixdpo"
    main.commands[verb].make_context(verb, arguments)  # refuses what the verb does not take


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_every_parameter_is_one_of_the_types(path: Path) -> None:
    values = load_params(path).model_dump(by_alias=True)
    for name, stage in STAGES.items():
        for key in stage.get("params", []):
            section: Any = values
            for part in key.split("."):
                assert part in section, f"{name} depends on {key}"
                section = section[part]


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_every_profile_has_the_policies_of_the_matrix(path: Path) -> None:
    assert tuple(load_params(path).policies) == POLICIES


def test_artifacts_are_models_that_stages_write() -> None:
    artifacts = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    outputs = set().union(*(paths(stage.get("outs", [])) for stage in STAGES.values()))
    assert set(artifacts) == {"sft", "rewards", *POLICIES}
    assert {artifact["path"] for artifact in artifacts.values()} <= outputs
    assert {artifact["type"] for artifact in artifacts.values()} == {"model"}


def test_no_output_persists() -> None:
    """A persisted output lets a stage resume work of other parameters (docs/decisions/0003)."""
    assert "persist" not in (ROOT / "dvc.yaml").read_text()


def test_dependencies_are_inputs_outputs_or_code() -> None:
    outputs = set().union(*(produced(stage) for stage in STAGES.values()))
    for name, stage in STAGES.items():
        for path in stage["deps"]:
            assert path == "${inputs}" or path in outputs or (ROOT / path).exists(), f"{name} depends on {path}"


def imported(module: Path) -> set[str]:
    """Modules of mixdpo that a module imports anywhere in it, as `rewards.model`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mixdpo"):
            base = (node.module or "").removeprefix("mixdpo").lstrip(".")
            inner = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {name if source(name) else base for name in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("mixdpo.") for alias in node.names if alias.name.startswith("mixdpo.")}
    return found


def source(module: str) -> Path | None:
    """The file of a module of mixdpo, relative to the project."""
    base = Path("mixdpo", *module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (ROOT / path).is_file():
            return path
    return None


@pytest.mark.parametrize("name", STAGES)
def test_code_that_a_stage_uses_is_among_its_dependencies(name: str) -> None:
    """Else DVC calls a stage up to date that would now compute something else."""
    stage = STAGES[name]
    todo, needed = [f"stages.{stage['cmd'].split()[1]}"], set()
    while todo:
        module = todo.pop()
        path = source(module)
        assert path is not None, f"{module} is not a module"
        needed.add(path)
        if module.startswith("stages."):
            names = {found for found in imported(ROOT / path) if not found.startswith(PLUMBING)}
            todo += [found for found in names if source(found) not in needed]
    missing = [path for path in needed if not any(path.is_relative_to(dependency) for dependency in stage["deps"])]
    assert not missing


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # of pygtrie, which DVC uses
def test_graph_is_that_of_the_architecture(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(("git", "init", "--quiet"), cwd=tmp_path, check=True)
    subprocess.run((sys.executable, "-m", "dvc", "init", "--quiet"), cwd=tmp_path, check=True)
    trained = tuple(f"train@{name}" for name in POLICIES)
    training = ("reference", "sft", "validate-preferences")
    gates = ("validate-preferences", "validate-reviews", "validate-scores")
    assert {stage.name: stage.upstream for stage in read_graph(tmp_path)} == {
        "prepare": (),
        "validate-reviews": ("prepare",),
        "describe-reviews": ("validate-reviews",),
        "describe-preferences": ("validate-preferences", "validate-scores"),
        "rewards": ("validate-reviews",),
        "sft": ("validate-reviews",),
        "candidates": ("sft", "validate-reviews"),
        "annotate": ("candidates", "rewards"),
        "validate-scores": ("annotate",),
        "preferences": ("validate-scores",),
        "validate-preferences": ("preferences",),
        "reference": ("sft", "validate-preferences"),
        **dict.fromkeys(trained, training),
        "evaluate": ("reference", "rewards", "sft", *trained, "validate-preferences", "validate-scores"),
        "report": ("evaluate", "rewards", *trained, *gates),
    }
