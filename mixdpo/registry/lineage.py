"""Where a version came from: code, parameters, data, reward models, metrics, packages. No times, no places.

profile, params, params_digest   what was asked for
git                              commit, and whether tracked code differed from it; null outside git
dvc_lock                         sha256 of dvc.lock and DVC's digest of each stage output; null without DVC
data                             sha256 of each validated table
arrivals                         sha256 of the manifest of each batch that arrived (mixdpo.data.batches)
rewards                          digest of each reward model's directory, and its card (card.json) where it has one
start                            what training went on from, with the digest of that version or directory
metrics                          metrics/evaluation.json
python, packages                 what ran
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from mixdpo import __version__
from mixdpo.config import Params
from mixdpo.config.data import ARRIVALS
from mixdpo.data.batches import MANIFEST
from mixdpo.errors import DataError
from mixdpo.files import digest, directory_digest, file_digest, read_json
from mixdpo.layout import TABLES, Layout

SCHEMA = 1
PACKAGES = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "pydantic"),
    *("datasets", "evaluate", "great-expectations", "pandas", "pyarrow", "scikit-learn", "scipy", "dvc", "prefect"),
)
ROLES = ("annotator", "judge")
# they say what a run did, and are in the lineage themselves; what else differs from the commit is code
RECORDED = ("params.yaml", "dvc.lock")


def gather(params: Params, layout: Layout) -> dict[str, Any]:
    """The lineage of what lies in `layout` now.

    Raises:
        DataError: evaluation has not run, or dvc.lock or a metrics file is not readable.
    """
    values = params.model_dump(mode="json", by_alias=True)
    arrived = (layout.root / params.inputs / ARRIVALS).glob(f"[0-9]*/{MANIFEST}")
    return {
        "schema": SCHEMA,
        "profile": params.profile,
        "params": values,
        "params_digest": digest(values),
        "git": git_state(layout.root),
        "dvc_lock": dvc_outputs(layout.root / "dvc.lock"),
        "data": {table: file_digest(path) for table in TABLES if (path := layout.validated(table)).is_file()},
        "arrivals": {path.parent.name: file_digest(path) for path in sorted(arrived)},
        "rewards": _reward_models(params, layout),
        "metrics": read_json(layout.metrics("evaluation")),
        "python": platform.python_version(),
        "packages": installed_packages(),
    }


def git_state(root: Path) -> dict[str, Any] | None:
    """The commit of `root` and whether its tracked files differ from it; None without git or outside a repository."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    unlike = (f":(exclude){name}" for name in RECORDED)
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *unlike)
    if commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def dvc_outputs(lock: Path) -> dict[str, Any] | None:
    """sha256 of dvc.lock, and for each output that it names DVC's own digest (`md5:…`); None where there is none."""
    if not lock.is_file():
        return None
    try:
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].values()
        outputs = [output for stage in stages for output in stage.get("outs", ())]
        digests = {output["path"]: f"{output['hash']}:{output[output['hash']]}" for output in outputs}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{lock} is not a dvc.lock ({error!r}); delete it and run `dvc repro`") from error
    return {"sha256": file_digest(lock), "outputs": digests}


def installed_packages() -> dict[str, str]:
    """Name → version of what results depend on, as far as installed; nothing is imported for it."""
    found = {"mixdpo": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _reward_models(params: Params, layout: Layout) -> dict[str, Any]:
    models = {}
    for dimension in params.rewards.dimensions:
        for role in ROLES:
            directory = layout.reward_model(dimension, role)
            if directory.is_dir():
                card = directory / "card.json"
                models[f"{dimension}/{role}"] = {
                    "sha256": directory_digest(directory),
                    "card": read_json(card) if card.is_file() else None,
                }
    return models


def _git(root: Path, *arguments: str) -> str | None:
    # without the optional locks, asking never gets in the way of someone's commit
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
