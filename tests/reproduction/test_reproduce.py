"""The clone of a version: its commit, its parameters, its inputs, and nothing of one's own work touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mixdpo.errors import DataError, MixDPOError, RegistryError
from mixdpo.files import write_json
from mixdpo.registry import Registry
from mixdpo.registry.lineage import dvc_outputs, git_state
from mixdpo.reproduction import origin_of, prepare

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")
ROOT = Path(__file__).parents[2]
STAGE = {"cmd": "cp data/external/rows.csv rows.copy", "deps": ["data/external", "code.py"], "outs": ["rows.copy"]}


def tool(root: Path, *arguments: str) -> str:
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.org") if arguments[0] == "git" else ()
    program = ("git", *author) if arguments[0] == "git" else (sys.executable, "-m", arguments[0])
    done = subprocess.run((*program, *arguments[1:]), cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def run(empty_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which one stage ran on inputs that git does not track."""
    root = Path(shutil.copytree(empty_repository, tmp_path_factory.mktemp("run") / "project", symlinks=True))
    values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    values["registry"]["url"] = "registry"
    (root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"copy": STAGE}}), encoding="utf-8")
    (root / "code.py").write_text("first = True\n", encoding="utf-8")
    (root / ".gitignore").write_text("/rows.copy\n/registry\n/data\n.mixdpo\n", encoding="utf-8")
    (root / "data" / "external").mkdir(parents=True)
    (root / "data" / "external" / "rows.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (root / "studies").mkdir()  # another graph, which was run with other code long ago
    old = {"cmd": "true", "deps": [{"path": "../code.py", "hash": "md5", "md5": "0" * 32}]}
    (root / "studies" / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"old": {"cmd": "true", "deps": ["../code.py"]}}}), encoding="utf-8"
    )
    (root / "studies" / "dvc.lock").write_text(
        yaml.safe_dump({"schema": "2.0", "stages": {"old": old}}), encoding="utf-8"
    )
    tool(root, "git", "add", "--all")
    tool(root, "git", "commit", "--quiet", "--message", "A stage")
    tool(root, "dvc", "repro", "--quiet")
    return root


@pytest.fixture
def project(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "project", symlinks=True))


@pytest.fixture
def registry(project: Path, tmp_path: Path) -> Registry:
    """reviews@v1, made of the project as it is; then the code goes on."""
    made = Registry(project / "registry")
    write_json(tmp_path / "policy" / "mixture.json", {"experts": 1})
    lineage = {"git": git_state(project), "dvc_lock": dvc_outputs(project / "dvc.lock"), "packages": {"torch": "0.1"}}
    run = {f"run/{name}": project / name for name in ("params.yaml", "dvc.lock")}
    made.register("reviews", tmp_path / "policy", lineage, None, "a test", run)
    (project / "code.py").write_text("first = False\n", encoding="utf-8")
    tool(project, "git", "commit", "--all", "--quiet", "--message", "It goes on")
    return made


def test_the_clone_is_what_the_version_was_made_from_and_the_checkout_stays(
    project: Path, registry: Registry, tmp_path: Path
) -> None:
    target = tmp_path / "again"
    (project / "params.yaml").write_text("mine: now\n", encoding="utf-8")
    origin = origin_of(registry, "reviews@v1")
    assert any("torch 0.1" in note for note in origin.notes)
    assert prepare(origin, project, target, registry, str(project / "registry")) == []
    assert (target / "code.py").read_text(encoding="utf-8") == "first = True\n"
    assert (target / "data" / "external" / "rows.csv").read_text(encoding="utf-8") == "a,b\n1,2\n"
    values = yaml.safe_load((target / "params.yaml").read_text(encoding="utf-8"))
    assert values["registry"]["url"] == str(project / "registry")
    assert values["profile"] == "demo"
    assert (project / "params.yaml").read_text(encoding="utf-8") == "mine: now\n"
    assert tool(project, "git", "status", "--porcelain").split("\n") == ["M params.yaml", "?? dvc.lock"]
    tool(target, "dvc", "repro", "--quiet")
    assert dvc_outputs(target / "dvc.lock") == registry.resolve("reviews").manifest.lineage["dvc_lock"]
    (target / "dvc.lock").write_text("kept", encoding="utf-8")
    assert prepare(origin, project, target, registry, None) == []  # to go on
    assert (target / "dvc.lock").read_text(encoding="utf-8") == "kept"


def test_other_inputs_are_refused_before_anything_runs(project: Path, registry: Registry, tmp_path: Path) -> None:
    rows = project / "data" / "external" / "rows.csv"
    rows.write_text("a,b\n1,3\n", encoding="utf-8")
    origin, target = origin_of(registry, "reviews@v1"), tmp_path / "again"
    with pytest.raises(DataError, match="does not hold what reviews@v1 was made from"):
        prepare(origin, project, target, registry, None)
    (target / "data" / "external" / "rows.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert prepare(origin, project, target, registry, None) == []


def test_tracked_inputs_come_from_the_cache_or_the_remote(project: Path, registry: Registry, tmp_path: Path) -> None:
    del registry  # its version is of inputs without a pointer
    (project / ".gitignore").write_text("/rows.copy\n/registry\n.mixdpo\n", encoding="utf-8")
    tool(project, "dvc", "add", "--quiet", "data/external/rows.csv")
    tool(project, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    tool(project, "git", "add", "--all")
    tool(project, "git", "commit", "--quiet", "--message", "Inputs are tracked")
    tool(project, "dvc", "push", "--quiet")
    tool(project, "dvc", "repro", "--quiet")
    made = Registry(tmp_path / "second")
    run = {f"run/{name}": project / name for name in ("params.yaml", "dvc.lock")}
    lineage = {"git": git_state(project)}
    made.register("reviews", tmp_path / "policy", lineage, None, "a test", run)
    origin = origin_of(made, "reviews@v1")
    fresh = tmp_path / "fresh"
    subprocess.run(("git", "clone", "--quiet", str(project), str(fresh)), check=True)
    for repository in (project, fresh):
        target = tmp_path / f"from-{repository.name}"
        assert prepare(origin, repository, target, made, None) == []
        assert (target / "data" / "external" / "rows.csv").read_text(encoding="utf-8") == "a,b\n1,2\n"
    (tmp_path / "remote").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"rows\.csv\.dvc.*neither the cache of"):
        prepare(origin, fresh, tmp_path / "from-nowhere", made, None)


def test_code_that_was_not_committed_is_named(project: Path, registry: Registry, tmp_path: Path) -> None:
    later = tool(project, "git", "rev-parse", "HEAD")
    origin = origin_of(registry, "reviews@v1", commit=later)
    assert prepare(origin, project, tmp_path / "again", registry, None) == ["code.py"]


def test_what_cannot_be_made_again_says_why(project: Path, registry: Registry, tmp_path: Path) -> None:
    origin = origin_of(registry, "reviews@v1")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept", encoding="utf-8")
    refused: list[tuple[str, Callable[[], object]]] = [
        ("is no clone at commit", lambda: prepare(origin, project, tmp_path / "mine", registry, None)),
        ("no git repository", lambda: prepare(origin, tmp_path, tmp_path / "again", registry, None)),
        (
            "has no commit",
            lambda: prepare(origin_of(registry, "reviews", "0" * 40), project, tmp_path / "b", registry, None),
        ),
    ]
    other = Registry(tmp_path / "other")
    other.register("plain", tmp_path / "policy", {}, None, "no git")
    refused.append(("--commit", lambda: origin_of(other, "plain@v1")))
    refused.append(("holds no run/params.yaml", lambda: origin_of(other, "plain@v1", "HEAD")))
    for message, act in refused:
        with pytest.raises(MixDPOError, match=message):
            act()
    assert (tmp_path / "mine" / "notes.txt").read_text(encoding="utf-8") == "kept"
    assert prepare(origin, project, tmp_path / "again", registry, None) == []
    lineage = {**registry.resolve("reviews").manifest.lineage, "seed": 1}
    run_files = {"run/params.yaml": project / "params.yaml"}
    other.register("other", tmp_path / "policy", lineage, None, "a test", run_files)
    with pytest.raises(RegistryError, match="reproduces another version"):
        prepare(origin_of(other, "other@v1"), project, tmp_path / "again", other, None)
