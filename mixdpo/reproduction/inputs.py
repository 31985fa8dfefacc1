"""The inputs of a version in a clone: by DVC where they are tracked, from this checkout, from the version itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from mixdpo.config import Params
from mixdpo.config.models import PretrainedPolicy
from mixdpo.errors import DataError, RegistryError
from mixdpo.registry import Registry, Version
from mixdpo.registry.base import BASES, place_base

DVC = (sys.executable, "-m", "dvc")
CHECKOUT = "this-checkout"  # what the clone calls the cache of the checkout that it was made from


def environment(clone: Path) -> dict[str, str]:
    """This process's, with the code of `clone` before any other and the commands of this environment first."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    code = os.pathsep.join(filter(None, (str(clone), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PATH": path, "PYTHONPATH": code}


def bring_inputs(clone: Path, repository: Path, params: Params, registry: Registry, version: Version) -> None:
    """Fill `inputs` of `clone`. What lies there already stays; whether it is right is for `changed_inputs` to say.

    Raises:
        DataError: DVC has what the commit tracks neither in this checkout's cache nor in a remote.
    """
    inputs = clone / params.inputs
    inputs.mkdir(parents=True, exist_ok=True)
    if pointers := sorted(path.relative_to(clone).as_posix() for path in inputs.rglob("*.dvc")):
        _pull(clone, repository, pointers)
    own = repository / params.inputs
    for path in sorted(own.rglob("*")):
        target = inputs / path.relative_to(own)
        if path.is_file() and not target.exists() and not any(part.startswith(".") for part in path.parts[-1:]):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    base = params.sft.base
    if isinstance(base, PretrainedPolicy) and base.model.startswith(f"{BASES}/") and not (inputs / base.model).is_dir():
        # versions that went on from one another have one reference, so it is this version's own
        place_base(version, registry.materialise(version.reference), inputs)


def changed_inputs(clone: Path, inputs: str) -> tuple[list[str], list[str]]:
    """What of the clone differs from what the dvc.lock in it says went in: input files, and code.

    Returns:
        (paths below or equal to `inputs`, other paths of the commit); both empty without a dvc.lock.
    """
    if not (clone / "dvc.lock").is_file():
        return [], []
    done = subprocess.run((*DVC, "status", "--json"), cwd=clone, env=environment(clone), capture_output=True, text=True)
    try:
        status = json.loads(done.stdout)
    except ValueError:
        raise RegistryError(
            f"DVC cannot read the clone in {clone}: {done.stderr.strip()}; the environment may be too new or old for "
            "this commit: `make setup` there, and run `mixdpo` of its .venv"
        ) from None
    found: set[str] = set()
    for stage, changes in status.items():
        # those of another dvc.yaml (studies/dvc.yaml:…) have no part in a version
        for change in changes if ":" not in stage else ():
            modified = change.get("changed deps", {}) if isinstance(change, dict) else {}
            # what is deleted are results of stages, which are to be made now
            found |= {path for path, state in modified.items() if state == "modified"}
    below = {path for path in found if Path(path).is_relative_to(inputs)}
    return sorted(below), sorted(path for path in found - below if (clone / path).exists())


def _pull(clone: Path, repository: Path, pointers: list[str]) -> None:
    """From the cache of this checkout, which costs nothing, else from the remote that the commit names."""
    here = subprocess.run(
        (*DVC, "cache", "dir"), cwd=repository, env=environment(clone), capture_output=True, text=True
    ).stdout.strip()
    local = clone / ".dvc" / "config.local"  # ignored by git, and not there in a new clone
    local.write_text(f"['remote \"{CHECKOUT}\"']\n    url = {here}\n    verify = true\n", encoding="utf-8")
    failures = []
    for remote in (("--remote", CHECKOUT), ()):
        command = (*DVC, "pull", "--quiet", *remote, *pointers)
        done = subprocess.run(command, cwd=clone, env=environment(clone), capture_output=True, text=True)
        if done.returncode == 0:
            return
        failures.append(done.stderr.strip())
    raise DataError(
        f"inputs of this version are tracked by DVC ({', '.join(pointers)}), but neither the cache of {repository} nor "
        f"a remote has them: {failures[-1]}; give the commit's remote its credentials, or `dvc pull` them in "
        f"{repository} first, and run it again"
    )
