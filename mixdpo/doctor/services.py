"""Hosts that a run would talk to: the Hub, a Ray cluster and a Prefect server, where they are named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.request import urlopen

from mixdpo.config import Params
from mixdpo.config.data import HubSource
from mixdpo.config.engine import RayEngine
from mixdpo.config.models import PretrainedPolicy, PretrainedReward
from mixdpo.doctor.finding import Finding
from mixdpo.engine.cluster import HERE, address_of, knock
from mixdpo.errors import TransientError

SECONDS = 5.0  # to wait for an answer


class Repository(NamedTuple):
    kind: Literal["model", "dataset"]
    name: str
    revision: str | None


def prefect() -> Finding:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return Finding("Prefect", "ok", "not needed: a run brings its own server")
    try:
        with urlopen(f"{url.rstrip('/')}/health", timeout=SECONDS):
            return Finding("Prefect", "ok", f"{url} answers")
    except (OSError, ValueError) as error:
        remedy = "start it with `prefect server start`, or unset PREFECT_API_URL: a run then brings its own"
        return Finding("Prefect", "fail", f"{url} does not answer ({error})", remedy)


def ray(params: Params) -> Finding:
    if not isinstance(params.engine, RayEngine):
        return Finding("Ray", "ok", "not needed: engine.kind is local")
    address = address_of(params.engine)
    if address == HERE:
        return Finding("Ray", "ok", "not needed: a stage brings its own cluster")
    try:
        knock(address)
        return Finding("Ray", "ok", f"{address} answers")
    except OSError as error:
        remedy = "start it, correct engine.address in params.yaml or RAY_ADDRESS, or set engine to local"
        return Finding("Ray", "fail", f"{address} does not answer ({error})", remedy)


def hub(params: Params, root: Path) -> Finding:
    """Whether the Hub has each model and data set that is no directory below `inputs`."""
    wanted = sorted({each for each in _repositories(params) if not (root / params.inputs / each.name).is_dir()})
    if not wanted:
        return Finding("Hub", "ok", "not needed: no model or data set comes from it")
    faults = [fault for each in wanted if (fault := _fault(each))]
    if faults:
        remedy = f"correct the names in params.yaml, connect to the network, or put copies below {root / params.inputs}"
        return Finding("Hub", "fail", "\n".join(faults), remedy)
    return Finding("Hub", "ok", f"{len(wanted)} models and data sets are there")


def _repositories(params: Params) -> Iterator[Repository]:
    if isinstance(params.source, HubSource):
        yield from (Repository("dataset", part.dataset, part.revision) for part in params.source.sets)
    models = [
        each for dimension in params.rewards.dimensions.values() for each in (dimension.annotator, dimension.judge)
    ]
    for model in (params.sft.base, *models):
        if isinstance(model, PretrainedPolicy | PretrainedReward):
            yield Repository("model", model.model, model.revision)


def _fault(wanted: Repository) -> str | None:
    """What is wrong with it; None where the Hub has it, or an earlier run left it in the cache."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from mixdpo.hub import asking_hub, first_line

    kind, name, revision = wanted
    named = f"{kind} {name} at revision {revision}"
    try:
        with asking_hub(named):
            HfApi().repo_info(name, revision=revision, repo_type=kind, timeout=SECONDS)
    except (TransientError, HfHubHTTPError, HFValidationError) as error:
        known = "config.json" if kind == "model" else "README.md"
        if isinstance(try_to_load_from_cache(name, known, revision=revision, repo_type=kind), str):
            return None
        return f"{named}: {'no answer' if isinstance(error, TransientError) else first_line(error)}"
    return None
