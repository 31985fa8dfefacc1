"""A run's params.yaml, dvc.lock, metrics and plots as a commit on a branch, without touching checkout or index.

The branch holds the code that ran, with what it gave: `git log results`, `dvc metrics diff results~1 results`. Its
commits are made of git's objects alone. A branch moves only from what it was seen at, so of runs that meet nobody's
commit is lost: the later one is made again on top. Nothing is ever forced.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mixdpo.errors import ConfigError, StorageError, TransientError
from mixdpo.layout import Layout

RECORDED = ("params.yaml", "dvc.lock")
TRIES = 10  # of runs that meet at the branch, one is through at each
NOBODY = {"GIT_AUTHOR_NAME": "mixdpo", "GIT_AUTHOR_EMAIL": "mixdpo@localhost"}  # where git knows no name
ABSENT = "0" * 40


class GitError(Exception):
    """git said no; the message is what it printed."""


def commit_results(layout: Layout, branch: str, message: str, remote: str | None = None) -> str | None:
    """Put what a run left on `branch`, on top of what is there, and give it to `remote` if one is named.

    Returns:
        The commit; None where the branch says the same already.

    Raises:
        ConfigError: no repository with a commit, `branch` is no name or is checked out, no such remote.
        TransientError: the remote does not answer. StorageError: it refuses, or others were quicker each time.
    """
    root = layout.root
    try:
        head = _git(root, "rev-parse", "--verify", "HEAD^{commit}")
        _git(root, "check-ref-format", "--branch", branch)
        if remote is not None:
            _git(root, "remote", "get-url", remote)
    except GitError as error:
        raise ConfigError(f"results cannot go to branch {branch!r} of {root}: {error}") from None
    if f"branch refs/heads/{branch}" in _git(root, "worktree", "list", "--porcelain").splitlines():
        raise ConfigError(f"branch {branch} is checked out, where results would look like changes; name another one")
    reference = f"refs/heads/{branch}"
    for _ in range(TRIES):
        here = _tip(root, reference)
        there = _remote_tip(root, remote, reference) if remote is not None else None
        parents = _heads(root, [each for each in (there, here) if each is not None] + [head])
        tree = _tree(root, head, _results(layout))
        same = next((tip for tip in (there, here) if tip and len(parents) == 1 and _tree_of(root, tip) == tree), None)
        commit = same or _commit(root, tree, parents, message)
        try:
            if remote is not None and commit != there:  # first, so that what is refused there is not here either
                _git(root, "push", "--quiet", remote, f"{commit}:{reference}")
            if commit != here:
                _git(root, "update-ref", reference, commit, here or ABSENT)
            return None if same else commit
        except GitError as error:
            last = error
            time.sleep(random.uniform(0.05, 0.5))  # whoever holds the branch is soon through
    raise StorageError(
        f"branch {branch} could not be moved to what this run gave, though it was tried {TRIES} times: {last}; the "
        "registry and DVC have the run. Mend the cause and run again: nothing is computed twice"
    )


def _results(layout: Layout) -> list[str]:
    """Paths of what tells of a run, from the root."""
    found = [layout.root / name for name in RECORDED]
    found += sorted(layout.metrics("any").parent.glob("*.json")) + sorted(
        layout.training_curve("any").parent.glob("*.csv")
    )
    return [path.relative_to(layout.root).as_posix() for path in found if path.is_file()]


def _tree(root: Path, commit: str, paths: list[str]) -> str:
    """The tree of `commit` with files of the working directory in it, by an index that is nobody else's."""
    prefix = _git(root, "rev-parse", "--show-prefix")  # the project may lie below the repository's root
    with tempfile.TemporaryDirectory() as place:
        index = {"GIT_INDEX_FILE": str(Path(place) / "index")}
        _git(root, "read-tree", commit, variables=index)
        for path in paths:
            blob = _git(root, "hash-object", "-w", "--", path)
            _git(root, "update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{path}", variables=index)
        return _git(root, "write-tree", variables=index)


def _commit(root: Path, tree: str, parents: list[str], message: str) -> str:
    try:
        _git(root, "var", "GIT_COMMITTER_IDENT")
        author: Mapping[str, str] = {}
    except GitError:
        author = NOBODY | {key.replace("AUTHOR", "COMMITTER"): value for key, value in NOBODY.items()}
    options = [option for parent in parents for option in ("-p", parent)]
    return _git(root, "commit-tree", tree, *options, "-m", message, variables=author)


def _heads(root: Path, commits: list[str]) -> list[str]:
    """Those that no other one of them comes after, in order."""
    unique = list(dict.fromkeys(commits))
    kept = set(_git(root, "merge-base", "--independent", *unique).split())
    return [each for each in unique if each in kept]


def _remote_tip(root: Path, remote: str, reference: str) -> str | None:
    try:
        if not (told := _git(root, "ls-remote", remote, reference).split()):
            return None
        _git(root, "fetch", "--quiet", "--no-tags", remote, reference)
    except GitError as error:
        raise TransientError(f"the git remote {remote} of {root} does not answer: {error}; run again") from None
    return told[0]


def _tip(root: Path, reference: str) -> str | None:
    return _git(root, "for-each-ref", "--format=%(objectname)", reference) or None


def _tree_of(root: Path, commit: str) -> str:
    return _git(root, "rev-parse", f"{commit}^{{tree}}")


def _git(root: Path, *arguments: str, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    # no prompt for a password: nobody sits before a schedule
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **variables}
    command = ("git", "-C", str(root), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise GitError(done.stderr.strip() or f"git {arguments[0]} ended with {done.returncode}")
    return done.stdout.strip()
