from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from mixdpo.errors import DataError
from mixdpo.registry.lineage import dvc_outputs, git_state, installed_packages

LOCK = """\
schema: '2.0'
stages:
  prepare:
    cmd: mixdpo prepare
    outs:
    - path: data/prepared/reviews.parquet
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 10
  train@mix:
    cmd: mixdpo train mix
    outs:
    - path: data/policies/mix
      hash: md5
      md5: fedcba9876543210fedcba9876543210.dir
      size: 20
      nfiles: 2
  check:
    cmd: "true"
"""


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    return subprocess.check_output(["git", "-C", str(root), *identity, *arguments], text=True)


def test_git_state_is_the_commit_and_whether_code_differs_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert git_state(tmp_path) is None  # nothing is committed yet
    for name in ("code.py", "params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("a: 1\n", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    clean = {"commit": git(tmp_path, "rev-parse", "HEAD").strip(), "dirty": False}
    assert git_state(tmp_path) == clean
    for name in ("params.yaml", "dvc.lock", "untracked.txt"):  # recorded in full elsewhere, or no code
        (tmp_path / name).write_text("b: 2\n", encoding="utf-8")
    assert git_state(tmp_path) == clean
    (tmp_path / "code.py").write_text("c = 3\n", encoding="utf-8")
    assert git_state(tmp_path) == {**clean, "dirty": True}


def test_without_git_there_is_no_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path(__file__).parent) is None


def test_dvc_lock_gives_its_digest_and_each_output(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    assert dvc_outputs(lock) is None
    lock.write_text(LOCK, encoding="utf-8")
    assert dvc_outputs(lock) == {
        "sha256": hashlib.sha256(LOCK.encode()).hexdigest(),
        "outputs": {
            "data/prepared/reviews.parquet": "md5:0123456789abcdef0123456789abcdef",
            "data/policies/mix": "md5:fedcba9876543210fedcba9876543210.dir",
        },
    }


@pytest.mark.parametrize("text", ["", "stages: [", "stages: {a: {outs: [{path: x}]}}", "other: 1"])
def test_what_is_no_dvc_lock_is_refused(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"^{lock} is not a dvc\.lock \(.*; delete it and run `dvc repro`$"):
        dvc_outputs(lock)


def test_packages_are_those_installed() -> None:
    packages = installed_packages()
    assert {"mixdpo", "pydantic"} <= packages.keys()
    assert all(isinstance(version, str) and version for version in packages.values())
