"""The whole job at toy size, as people run it: from params.yaml to a policy that writes on another machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mixdpo.cli import main
from mixdpo.files import file_digest, read_json
from mixdpo.registry import Registry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # pygtrie, which DVC uses, warns of its own future
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),
]
ROOT = Path(__file__).parents[1]


def tiny() -> dict[str, Any]:
    """The demo with every number as low as the stages allow."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    values["compute"] |= {"device": "cpu"}
    values["source"] |= {"reviews": 500, "users": 40}
    values["validation"] |= {"min_reviews": 100}
    values["rewards"]["training"] |= {"vocabulary": 600, "width": 32, "epochs": 2}
    values["rewards"]["dimensions"]["grammar"]["labels"][1]["limit"] = 400
    values["sft"] |= {"epochs": 1}
    values["sft"]["base"] |= {"vocabulary": 600, "layers": 1, "width": 32, "heads": 2}
    values["candidates"] |= {"prompts": {"train": 60, "validation": 12, "test": 24}, "max_new_tokens": 16}
    values["preferences"]["annotators"] |= {"train": 18, "validation": 6, "test": 9, "pairs": 6, "min_gap": 0.2}
    values["training"] |= {"batch_pairs": 24, "evaluate_every": 2, "checkpoint_every": 4}
    values["evaluation"] |= {"bootstrap": 100}
    return values


def command(root: Path, *arguments: str) -> str:
    done = subprocess.run((sys.executable, "-m", *arguments), cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A registry and a cache of this test's own, for this process and those that it starts."""
    place = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXDPO_REGISTRY", str(place / "registry"))
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        yield place / "registry"


@pytest.fixture(scope="module")
def project(empty_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone: what the stages of dvc.yaml depend on, committed, with nothing computed."""
    root = Path(shutil.copytree(empty_repository, tmp_path_factory.mktemp("clone") / "project"))
    for name in ("mixdpo", "flows"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    (root / "data" / "external").mkdir(parents=True)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny(), sort_keys=False), encoding="utf-8")
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(("git", "add", "--all"), cwd=root, check=True)
    subprocess.run(("git", *author, "commit", "--quiet", "--message", "A clone"), cwd=root, check=True)
    return root


@pytest.mark.usefixtures("prefect_server")
def test_from_parameters_to_a_policy_that_writes_elsewhere(
    project: Path, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.retrain import retrain

    first = retrain(root=project, workers=2, results_branch="results")
    assert {stage.outcome for stage in first.stages} == {"ran"}
    assert len(first.stages) == 17
    assert first.version is not None
    assert first.version.created
    assert (first.outcome, first.reason) == ("Registered", "reviews@v1 (staging); stages: 17 ran")
    assert "Registered  reviews@v1 (staging)" in first.summary
    _outputs_are_readable(project)
    _artifacts_are_published()
    assert "up to date" in command(project, "dvc", "status")

    kept = subprocess.run(("git", "show", "results:dvc.lock"), cwd=project, capture_output=True, check=True).stdout
    assert kept.strip() == (project / "dvc.lock").read_bytes().strip()

    second = retrain(root=project, workers=2)
    assert {stage.outcome for stage in second.stages} == {"unchanged"}
    assert second.version is not None
    assert not second.version.created
    assert second.outcome == "Nothing new"
    assert len(Registry(registry).history("reviews").entries) == 1

    fresh = tmp_path / "elsewhere"
    fresh.mkdir()
    monkeypatch.chdir(fresh)
    _is_used_from_a_fresh_directory(fresh)


def test_a_version_is_made_again_from_its_reference_in_a_fresh_clone(
    project: Path, registry: Path, tmp_path: Path
) -> None:
    clone, again = tmp_path / "clone", tmp_path / "again"
    subprocess.run(("git", "clone", "--quiet", str(project), str(clone)), check=True)
    command_line = ("mixdpo", "--root", str(clone), "reproduce", "reviews@v1", str(again), "--json")
    found = json.loads(command(clone, *command_line, "--registry", str(registry)))
    assert found["identical"]
    assert found["apart"] is None
    assert found["data"].keys() == {"reviews", "scores", "preferences"}
    assert {"run/metrics/evaluation.json", "run/standing.safetensors"} <= found["results"].keys()
    version = Registry(registry).resolve("reviews@v1").manifest
    assert file_digest(again / "data" / "validated" / "reviews.parquet") == version.lineage["data"]["reviews"]


def _outputs_are_readable(root: Path) -> None:
    metrics = read_json(root / "metrics" / "evaluation.json")
    assert metrics["schema"] == 1
    page = (root / "reports" / "index.html").read_text(encoding="utf-8")
    for name in ("sft", "dpo", "mix", "moe"):
        assert name in page
    # self-contained: nothing is loaded from beside it or from another host
    loaded = re.findall(r"""<(?:script|img|link|iframe)[^>]*?(?:src|href)=["']([^"']+)""", page)
    assert [source for source in loaded if not source.startswith("data:")] == []
    assert "@import" not in page


def _artifacts_are_published() -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts()}
    assert keys >= {"metrics", "report", "report-page"}


def _is_used_from_a_fresh_directory(here: Path) -> None:
    from mixdpo import MixturePolicy

    cli = CliRunner()
    pulled = cli.invoke(main, ["pull", "reviews@staging"])
    assert pulled.exit_code == 0, pulled.output
    assert (here / "reviews" / "mixture.json").is_file()
    assert read_json(here / "reviews" / "run" / "metrics" / "evaluation.json")["schema"] == 1
    checked = cli.invoke(main, ["verify", "reviews"])
    assert checked.exit_code == 0, checked.output

    policy = MixturePolicy.from_pretrained("reviews@staging")
    written = policy.generate(["This film"], max_new_tokens=8, seed=0)
    assert len(written.texts) == 1
    again = MixturePolicy.from_pretrained(here / "reviews").generate(["This film"], max_new_tokens=8, seed=0)
    assert again.texts == written.texts
