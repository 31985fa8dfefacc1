"""From a reference to a run in a clone of its own, and what that run gave beside what was registered."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixdpo.config import Params, parse_params
from mixdpo.config.rewriting import rewrite
from mixdpo.errors import DataError, RegistryError
from mixdpo.layout import Layout
from mixdpo.registry import Registry, Version
from mixdpo.registry.figures import at
from mixdpo.registry.lineage import installed_packages
from mixdpo.registry.manifest import RUN
from mixdpo.reproduction.checkout import clone_at
from mixdpo.reproduction.comparison import Comparison, compare
from mixdpo.reproduction.inputs import DVC, bring_inputs, changed_inputs, environment

MARK = Path(".mixdpo") / "reproduces"  # in a clone: the digest of the version that it was made for


@dataclass(frozen=True)
class Origin:
    """What a version says that it was made with."""

    version: Version
    commit: str
    params: Params
    notes: tuple[str, ...]  # why it may come out otherwise here, a line each


def origin_of(registry: Registry, reference: str, commit: str | None = None) -> Origin:
    """Read a version's code, parameters and environment.

    Args:
        commit: instead of the one that the version names.

    Raises:
        RegistryError: it says nothing of its commit (and none is given) or of its parameters.
    """
    version = registry.resolve(reference)
    lineage = version.manifest.lineage
    named = at(lineage, "git", "commit")
    if commit is None and not isinstance(named, str):
        raise RegistryError(
            f"{version.reference} was registered outside git and does not say of which commit; name it with --commit"
        )
    try:
        text = registry.read(version, f"{RUN}params.yaml").decode()
    except FileNotFoundError:
        raise RegistryError(
            f"{version.reference} holds no {RUN}params.yaml, so nobody can tell how it was made"
        ) from None
    params = parse_params(yaml.safe_load(text), f"params.yaml of {version.reference}")
    return Origin(version, commit or str(named), params, tuple(_notes(lineage)))


def prepare(origin: Origin, repository: Path, target: Path, registry: Registry, url: str | None) -> list[str]:
    """Lay out `target`: the code of the version's commit, its params.yaml and dvc.lock, its inputs; once.

    Args:
        url: the registry in use, for versions that training started from; null: the one that params.yaml names.

    Returns:
        Code that differs from what the version was made with, by DVC's digests: paths of the clone.

    Raises:
        RegistryError: see `clone_at`; or `target` is being used for another version.
        DataError: inputs are not there, or others than those that went into the version.
    """
    version = origin.version
    clone_at(repository, origin.commit, target)
    mark = target / MARK
    if mark.is_file() and mark.read_text(encoding="utf-8") != version.digest:
        raise RegistryError(f"{target} reproduces another version already; choose a directory that does not exist")
    if not mark.is_file():
        for name in ("params.yaml", "dvc.lock"):
            if f"{RUN}{name}" in version.manifest.files:
                (target / name).write_bytes(registry.read(version, f"{RUN}{name}"))
        if url is not None:
            rewrite(target / "params.yaml", {("registry", "url"): url})
        bring_inputs(target, repository, origin.params, registry, version)
        inputs, code = changed_inputs(target, origin.params.inputs)
        if inputs:
            raise DataError(
                f"{target / origin.params.inputs} does not hold what {version.reference} was made from (by the digests "
                f"of its dvc.lock); put those files there, and no others, and run it again"
            )
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(version.digest, encoding="utf-8")
        return code
    return []


def run(origin: Origin, target: Path) -> Comparison:
    """`dvc repro` in a clone that `prepare` laid out; goes on where an earlier one stopped.

    Raises:
        RegistryError: a stage failed; its lines are on the terminal.
    """
    lines = 2  # to stderr: on stdout is the comparison alone
    done = subprocess.run((*DVC, "repro"), cwd=target, env=environment(target), stdout=lines, check=False)
    if done.returncode:
        raise RegistryError(
            f"{origin.version.reference} was not made again: `dvc repro` in {target} ended with {done.returncode}; "
            "its lines above say why. What was finished is kept: mend the cause and run it again"
        )
    return compare(origin.version.manifest, Layout(target), origin.params.registry.policy)


def _notes(lineage: dict[str, Any]) -> list[str]:
    notes = []
    if at(lineage, "git", "dirty"):
        notes.append("code was changed and not committed when it was registered")
    if (was := lineage.get("python")) != (now := platform.python_version()):
        notes.append(f"Python was {was}, here it is {now}")
    before, here = lineage.get("packages") or {}, installed_packages()
    others = [
        f"{name} {before[name]} (here {here.get(name, 'none')})" for name in before if here.get(name) != before[name]
    ]
    if others:
        notes.append("packages were " + ", ".join(others))
    return notes
