"""The doctor finds what would stop a run, each with its remedy, and is content with a sound project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.config import parse_params
from mixdpo.doctor import Finding, machine, project, services, sharing
from mixdpo.registry.keys import new_key, public_text
from mixdpo.registry.variables import SIGNER, TRUSTED

ROOT = Path(__file__).parents[2]

# pygtrie, which DVC uses, warns of its own future
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")


def values(profile: str = "demo") -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / f"{profile}.yaml").read_text(encoding="utf-8"))
    return read


@pytest.fixture
def root(new_repository: Callable[[], Path]) -> Path:
    made = new_repository()
    for name in ("dvc.yaml", "requirements.lock"):
        shutil.copy(ROOT / name, made)
    shutil.copy(ROOT / "profiles" / "demo.yaml", made / "params.yaml")
    return made


@pytest.fixture(autouse=True)
def _own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXDPO_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def doctor(root: Path) -> Result:
    return CliRunner().invoke(main, ["--root", str(root), "doctor"])


def states(result: Result) -> dict[str, str]:
    lines = [line for line in result.output.splitlines() if line[:4].strip() in ("ok", "warn", "fail")]
    return {line[6:16].strip(): line[:4].strip() for line in lines}


def test_a_sound_project_has_no_failure(root: Path) -> None:
    result = doctor(root)
    assert result.exit_code == 0, result.output
    assert "fail" not in states(result).values()
    assert states(result)["pipeline"] == "ok"
    assert "dvc.yaml fits: 17 stages" in result.output
    assert "not needed: no model or data set comes from it" in result.output
    assert "not needed: a run brings its own server" in result.output


def test_wrong_parameters_are_one_failure_and_the_rest_is_still_looked_at(root: Path) -> None:
    (root / "params.yaml").write_text("profile: demo\n", encoding="utf-8")
    result = doctor(root)
    assert result.exit_code == 1
    assert states(result)["params"] == "fail"
    assert "→ mend params.yaml, or `mixdpo profile use demo`" in result.output
    assert states(result)["Python"] == states(result)["Prefect"] == "ok"


def test_a_directory_that_is_no_project_is_told(tmp_path: Path) -> None:
    result = doctor(tmp_path)
    assert result.exit_code == 1
    assert states(result)["pipeline"] == "fail"
    assert "→ go to the project's directory" in result.output


def test_a_faulty_graph_is_told(root: Path) -> None:
    (root / "dvc.yaml").write_text("stages: {one: {cmds: echo}}\n", encoding="utf-8")
    found = project.pipeline(root)
    assert found.state == "fail"
    assert found.found.startswith("DVC cannot read it: ")


@pytest.mark.parametrize(
    ("lock", "state", "told"),
    [
        ("absent", "warn", "is missing, so nothing to compare with"),
        ("numpy==1.0.0 \\\n", "warn", "other than tested: numpy "),
        ("# torch: torch==0.1\n", "warn", r"other than tested: torch \S+ \(locked 0.1\)"),
        ("no-such-package==1.0\n", "ok", "0 looked at"),  # what a run does not use itself is not looked for
    ],
)
def test_packages_are_compared_with_the_lock(tmp_path: Path, lock: str, state: str, told: str) -> None:
    import re

    if lock != "absent":
        (tmp_path / "requirements.lock").write_text(lock, encoding="utf-8")
    found = machine.packages(tmp_path)
    assert found.state == state
    assert re.search(told, found.found)


@pytest.mark.parametrize(("fastapi", "state"), [("0.150.2", "warn"), ("0.151.0", "fail"), ("1.0.0", "fail")])
def test_a_fastapi_with_which_the_server_does_not_start_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastapi: str, state: str
) -> None:
    (tmp_path / "requirements.lock").write_text("fastapi==0.140.0\n", encoding="utf-8")
    monkeypatch.setattr(machine, "version", lambda _: fastapi)
    assert machine.packages(tmp_path).state == state


def test_a_missing_package_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.lock").write_text("prefect==3.8.8\n", encoding="utf-8")

    def absent(name: str) -> str:
        raise machine.PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", absent)
    expected = Finding("packages", "fail", "not installed: prefect", machine.SETUP)
    assert machine.packages(tmp_path) == expected


def test_a_device_that_is_not_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = values()
    wanted["compute"]["device"] = "cuda"
    found = machine.torch_build(parse_params(wanted))
    assert (found.state, found.remedy) == ("fail", "set it to auto or cpu in params.yaml")
    assert machine.torch_build(parse_params(values())).state == "ok"


def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DISK", 1e9)
    monkeypatch.setattr(machine, "MEMORY", 1e9)
    assert machine.disk(tmp_path).state == "fail"
    assert machine.memory().state == "warn"


def test_each_pattern_of_files_has_to_match(tmp_path: Path) -> None:
    params = parse_params(values("reviews") | {"inputs": "inputs"})
    found = project.inputs(params, tmp_path)
    assert found.state == "fail"
    assert str(tmp_path / "inputs") in found.remedy
    assert len(found.found.splitlines()) == len(list(project._patterns(params)))


def test_a_place_where_files_land_has_to_be_there(tmp_path: Path) -> None:
    assert project.landing(parse_params(values()), tmp_path).state == "ok"
    changed = values("reviews") | {"arrivals": {"url": "landing", "settle_seconds": 0, "bad": "refuse"}}
    changed["source"]["sets"][1]["paths"].append("arrivals/*/books/*")
    params = parse_params(changed)
    missing = project.landing(params, tmp_path)
    assert missing.state == "fail"
    assert "is no directory; make it, or correct arrivals.url" in missing.found
    (tmp_path / "landing").mkdir()
    assert project.landing(params, tmp_path).found.startswith("0 files in ")


def test_a_registry_that_cannot_be_written_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = parse_params(values())
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    nobody = "s3://bucket/registry?endpoint=http://127.0.0.1:9"  # the discard port
    for place in (str(tmp_path / "file" / "registry"), nobody, "s3://Bucket"):
        monkeypatch.setenv("MIXDPO_REGISTRY", place)
        assert project.registry(params, tmp_path).state == "fail"
    monkeypatch.setenv("MIXDPO_REGISTRY", str(tmp_path / "new" / "registry"))
    assert project.registry(params, tmp_path).found == f"{tmp_path / 'new' / 'registry'} (will be made)"


def test_a_server_that_is_named_has_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # the discard port: nobody listens
    found = services.prefect()
    assert found.state == "fail"
    assert "or unset PREFECT_API_URL" in found.remedy


def test_a_ray_cluster_that_is_named_has_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert services.ray(parse_params(values())).state == "ok"
    engine = {"kind": "ray", "cpus": 1}
    assert (
        services.ray(parse_params(values() | {"engine": engine})).found == "not needed: a stage brings its own cluster"
    )
    found = services.ray(parse_params(values() | {"engine": engine | {"address": "127.0.0.1:9"}}))
    assert (found.state, found.found[:26]) == ("fail", "127.0.0.1:9 does not answe")
    assert "correct engine.address in params.yaml or RAY_ADDRESS" in found.remedy


def test_a_hub_that_is_needed_has_to_answer_and_copies_do_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    params = parse_params(values("imdb"))
    found = services.hub(params, tmp_path)
    assert found.state == "fail"
    assert "dataset stanfordnlp/imdb at revision " in found.found
    assert "model openai-community/gpt2 at revision 607a30d783dfa663caf39e06633721c8d4cfcd7e: no answer" in found.found
    for each in set(services._repositories(params)):
        (tmp_path / params.inputs / each.name).mkdir(parents=True)
    assert services.hub(params, tmp_path).state == "ok"


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run((sys.executable, "-m", "dvc", *arguments), cwd=root, check=True, capture_output=True)


def test_a_remote_that_does_not_verify_is_a_warning_and_one_that_does_is_not(root: Path, tmp_path: Path) -> None:
    assert sharing.remotes(root).found.startswith("none")
    dvc(root, "remote", "add", "--default", "shared", str(tmp_path / "shared"))
    found = sharing.remotes(root)
    assert (found.state, found.remedy) == ("warn", "`dvc remote modify shared verify true`")
    dvc(root, "remote", "modify", "shared", "verify", "true")
    assert sharing.remotes(root).state == "ok"


def test_a_remote_that_does_not_answer_is_a_failure_that_names_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-nobody")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (root / ".dvc" / "config").write_text(
        "['remote \"team\"']\n    url = s3://bucket/dvc\n    endpointurl = http://127.0.0.1:9\n", encoding="utf-8"
    )
    found = sharing.remotes(root)
    assert found.state == "fail"
    assert found.found.startswith("team (s3://bucket/dvc): ")
    assert "secret-of-nobody" not in found.found + found.remedy


def test_code_that_is_not_committed_is_a_warning(root: Path) -> None:
    assert sharing.code(root).state == "warn"  # nothing is committed yet
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    for arguments in (("add", "--all"), ("commit", "--quiet", "--message", "One")):
        subprocess.run(("git", *author, *arguments), cwd=root, check=True)
    assert sharing.code(root).state == "ok"
    (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    assert "differs from commit" in sharing.code(root).found


def test_versions_that_nobody_could_use_are_a_failure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUSTED, raising=False)
    monkeypatch.delenv(SIGNER, raising=False)
    assert sharing.signatures(parse_params(values(), "test"), root).found == "versions are not signed, and need not be"
    public = public_text(new_key(root / "mine.pem").public_key())
    required = values()
    required["registry"]["signing"] = {"key": None, "required": True, "trusted": [public]}
    params = parse_params(required, "test")
    assert "there is no key to sign with" in sharing.signatures(params, root).found
    monkeypatch.setenv(SIGNER, str(root / "mine.pem"))
    assert sharing.signatures(params, root) == Finding("signatures", "ok", f"versions are signed by {public}")
    (root / "mine.pem").chmod(0o644)
    assert "chmod 600" in sharing.signatures(params, root).found
    (root / "mine.pem").chmod(0o600)
    monkeypatch.setenv(TRUSTED, "ed25519:nonsense")
    assert sharing.signatures(params, root).state == "fail"
