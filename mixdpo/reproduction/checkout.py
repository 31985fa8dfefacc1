"""A clone of this repository at the commit of a version, beside it: nothing of one's own work is touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mixdpo.errors import RegistryError


def clone_at(repository: Path, commit: str, target: Path) -> None:
    """Make `target` a clone of `repository` with `commit` checked out; one that is so already is left as it is.

    Raises:
        RegistryError: `repository` is none, has no such commit (nor has its origin), or something else is at `target`.
    """
    if target.exists() and any(target.iterdir()):
        if _git(target, "rev-parse", "--verify", "--quiet", "HEAD") != commit or not (target / ".git").exists():
            raise RegistryError(
                f"{target} exists and is no clone at commit {commit[:12]}; choose a directory that does not exist, or "
                "remove this one"
            )
        return
    if _git(repository, "rev-parse", "--git-dir") is None:
        raise RegistryError(f"{repository} is no git repository; run this in a clone of the project (or give --root)")
    there = ("cat-file", "-e", f"{commit}^{{commit}}")
    if _git(repository, *there) is None:
        _git(repository, "fetch", "--quiet", "origin", commit)  # it may be on a branch that nobody fetched
    if _git(repository, *there) is None:
        raise RegistryError(
            f"{repository} has no commit {commit}, nor has its origin; fetch from the repository that this version was "
            "made in (`git remote add`, `git fetch`), or name a commit of the same code with --commit"
        )
    _must(repository, "clone", "--quiet", "--no-checkout", str(repository.resolve()), str(target))
    _must(target, "fetch", "--quiet", "origin", commit)
    _must(target, "checkout", "--quiet", "--detach", commit)


def _must(place: Path, *arguments: str) -> None:
    done = subprocess.run(("git", "-C", str(place), *arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RegistryError(f"git {arguments[0]} failed in {place}: {done.stderr.strip()}; mend that and run it again")


def _git(place: Path, *arguments: str) -> str | None:
    done = subprocess.run(("git", "-C", str(place), *arguments), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
