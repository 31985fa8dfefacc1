"""Results on a branch: nobody's checkout moves, nobody's commit is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.results_branch import commit_results
from mixdpo.errors import ConfigError, StorageError, TransientError
from mixdpo.files import write_json, write_text
from mixdpo.layout import Layout

Git = Callable[..., str]


def git(root: Path, *arguments: str) -> str:
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(("git", *author, *arguments), cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def ran(root: Path, accuracy: float) -> Layout:
    """What a run leaves; metrics are ignored by git, as in the project."""
    layout = Layout(root)
    write_text(root / "params.yaml", f"seed: {accuracy}\n")
    write_text(root / "dvc.lock", f"schema: '2.0' # {accuracy}\n")
    write_json(layout.metrics("evaluation"), {"accuracy": accuracy})
    write_text(layout.training_curve("moe"), f"step,loss\n1,{accuracy}\n")
    return layout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    write_text(root / ".gitignore", "/metrics/\n/plots/\n")
    write_text(root / "code.py", "one = 1\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Code")
    return root


def test_a_run_is_a_commit_on_the_code_that_ran_and_the_checkout_stays(root: Path) -> None:
    write_text(root / "staged.txt", "mine")
    git(root, "add", "staged.txt")
    write_text(root / "code.py", "one = 11\n")
    layout = ran(root, 0.7)
    before = git(root, "status", "--porcelain")
    first = commit_results(layout, "results", "reviews@v1")
    assert git(root, "status", "--porcelain") == before
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(root, "rev-parse", "results") == first
    assert git(root, "rev-parse", "results^") == git(root, "rev-parse", "main")
    names = git(root, "ls-tree", "-r", "--name-only", "results").split()
    assert names == [
        ".gitignore",
        "code.py",
        "dvc.lock",
        "metrics/evaluation.json",
        "params.yaml",
        "plots/train-moe.csv",
    ]
    assert git(root, "show", "results:code.py") == "one = 1"  # what is committed, not what lies there
    assert (
        git(root, "show", "results:metrics/evaluation.json") == (root / "metrics/evaluation.json").read_text().strip()
    )


def test_the_same_again_makes_no_commit_and_more_goes_on_top(root: Path) -> None:
    first = commit_results(ran(root, 0.7), "results", "one")
    assert commit_results(ran(root, 0.7), "results", "again") is None
    second = commit_results(ran(root, 0.8), "results", "two")
    assert git(root, "rev-parse", "results^") == first
    write_text(root / "code.py", "two = 2\n")
    git(root, "commit", "--quiet", "--all", "--message", "Code goes on")
    third = commit_results(ran(root, 0.8), "results", "three")
    assert git(root, "show", "--no-patch", "--format=%P", "results").split() == [second, git(root, "rev-parse", "main")]
    assert git(root, "rev-parse", "results") == third
    assert git(root, "show", "results:code.py") == "two = 2"


def test_runs_that_meet_in_a_shared_remote_all_stay(root: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared.git"
    git(tmp_path, "init", "--quiet", "--bare", str(shared))
    clones = []
    for number in range(4):
        clone = tmp_path / f"clone-{number}"
        git(tmp_path, "clone", "--quiet", str(root), str(clone))
        git(clone, "remote", "add", "team", str(shared))
        clones.append(clone)

    def run(number: int) -> str | None:
        return commit_results(ran(clones[number], number / 10), "results", f"run {number}", remote="team")

    with ThreadPoolExecutor(4) as pool:
        commits = list(pool.map(run, range(4)))
    kept = git(shared, "log", "--format=%H", "results").split()
    assert None not in commits
    assert set(commits) <= set(kept)
    assert len(kept) == 5  # theirs, and the code's


def test_where_git_knows_no_name_the_commit_is_by_mixdpo(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    git(root, "config", "user.useConfigOnly", "true")
    commit_results(ran(root, 0.7), "results", "one")
    assert git(root, "show", "--no-patch", "--format=%an %cn", "results") == "mixdpo mixdpo"


def test_what_cannot_be_says_what_to_do(root: Path, tmp_path: Path) -> None:
    layout = ran(root, 0.7)
    with pytest.raises(ConfigError, match="branch main is checked out"):
        commit_results(layout, "main", "one")
    with pytest.raises(ConfigError, match="not a valid branch name"):
        commit_results(layout, "no name", "one")
    with pytest.raises(ConfigError, match="No such remote"):
        commit_results(layout, "results", "one", remote="nowhere")
    with pytest.raises(ConfigError, match="not a git repository"):
        commit_results(Layout(tmp_path), "results", "one")
    git(root, "remote", "add", "gone", str(tmp_path / "gone.git"))
    with pytest.raises(TransientError, match="does not answer"):
        commit_results(layout, "results", "one", remote="gone")


def test_a_remote_that_refuses_leaves_the_branch_where_it_was(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.results_branch.TRIES", 2)
    shared = tmp_path / "shared.git"
    git(tmp_path, "init", "--quiet", "--bare", str(shared))
    write_text(shared / "hooks" / "pre-receive", "#!/bin/sh\necho protected >&2\nexit 1\n")
    (shared / "hooks" / "pre-receive").chmod(0o755)
    git(root, "remote", "add", "team", str(shared))
    with pytest.raises(StorageError, match="protected"):
        commit_results(ran(root, 0.7), "results", "one", remote="team")
    assert git(root, "for-each-ref", "refs/heads/results") == ""
