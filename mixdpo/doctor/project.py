"""The graph, the input files and the registry that this project names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mixdpo.config import Params
from mixdpo.config.data import FilesSource, PreferenceFiles
from mixdpo.config.models import FileLabels
from mixdpo.doctor.finding import Finding
from mixdpo.errors import DataError, MixDPOError


def pipeline(root: Path) -> Finding:
    """Whether DVC can read the graph."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    if not (root / "dvc.yaml").is_file():
        return Finding("pipeline", "fail", f"{root.resolve()} has no dvc.yaml", "go to the project's directory")
    try:
        with Repo(str(root)) as repo:
            stages = len(repo.index.stages)
    except SCMError as error:
        remedy = "work in a clone of the project with its .git, or `dvc config core.no_scm true` to do without"
        return Finding("pipeline", "fail", f"DVC cannot read it: {error}", remedy)
    except DvcException as error:
        return Finding("pipeline", "fail", f"DVC cannot read it: {error}", "`dvc stage list` tells more")
    return Finding("pipeline", "ok", f"dvc.yaml fits: {stages} stages")


def inputs(params: Params, root: Path) -> Finding:
    """Whether each pattern of files that the values name matches one."""
    from mixdpo.data.tables import find_files

    directory = root / params.inputs
    patterns = list(_patterns(params))
    if not patterns:
        return Finding("inputs", "ok", f"no file of {params.inputs} is needed")
    faults, files = [], 0
    for paths in patterns:
        try:
            files += len(find_files(paths, directory))
        except DataError as error:
            faults.append(str(error).split("; ")[0])  # the remedy is said once, for all
    if faults:
        remedy = f"put the files below {directory}, or correct `inputs` and `paths` in params.yaml"
        return Finding("inputs", "fail", "\n".join(faults), remedy)
    return Finding("inputs", "ok", f"{files} files below {directory}")


def _patterns(params: Params) -> Iterator[tuple[str, ...]]:
    if isinstance(params.source, FilesSource):
        yield from (part.paths for part in params.source.sets)
    if isinstance(params.preferences.source, PreferenceFiles):
        yield params.preferences.source.paths
    for dimension in params.rewards.dimensions.values():
        yield from (labels.paths for labels in dimension.labels if isinstance(labels, FileLabels))


def landing(params: Params, root: Path) -> Finding:
    """Whether the place where new files land can be listed."""
    from mixdpo.data.landing import open_landing

    if params.arrivals is None:
        return Finding("arrivals", "ok", "none: params.yaml names no place where files land")
    try:
        store = open_landing(params.arrivals, root)
        files = len(store.list(""))
    except MixDPOError as error:
        return Finding("arrivals", "fail", str(error), "mend that, or name another place with arrivals.url")
    return Finding("arrivals", "ok", f"{files} files in {store.location}; `mixdpo arrivals` tells which are new")


def registry(params: Params, root: Path) -> Finding:
    """Whether versions could be written."""
    from mixdpo.registry import registry_location
    from mixdpo.registry.location import check_bucket

    try:
        location = registry_location(params.registry.url, root)
        if not isinstance(location, Path):
            return Finding("registry", "ok", check_bucket(location))
    except MixDPOError as error:
        return Finding("registry", "fail", str(error), "mend that, or name another with registry.url")
    there = next(path for path in (location, *location.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        remedy = "make it writable, or name another with registry.url or $MIXDPO_REGISTRY"
        return Finding("registry", "fail", f"{location}: {there} is not a writable directory", remedy)
    return Finding("registry", "ok", str(location) if there == location else f"{location} (will be made)")
