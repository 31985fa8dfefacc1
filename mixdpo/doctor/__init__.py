"""What would stop a run: findings about the machine, the project and the services that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mixdpo.config import Params, load_params
from mixdpo.doctor.finding import Finding
from mixdpo.doctor.machine import disk, memory, packages, python, torch_build
from mixdpo.doctor.project import inputs, landing, pipeline, registry
from mixdpo.doctor.services import hub, prefect, ray
from mixdpo.doctor.sharing import code, remotes, signatures
from mixdpo.errors import MixDPOError


def examine(root: Path) -> Iterator[Finding]:
    """All checks, each finding as soon as it is made, those on which others rest first."""
    params, finding = _params(root)
    yield python()
    yield packages(root)
    yield torch_build(params)
    yield memory()
    yield disk(root)
    yield finding
    yield pipeline(root)
    yield remotes(root)
    yield code(root)
    if params is not None:  # what the values name can be looked at only where there are values
        yield inputs(params, root)
        yield landing(params, root)
        yield registry(params, root)
        yield signatures(params, root)
        yield hub(params, root)
        yield ray(params)
    yield prefect()


def _params(root: Path) -> tuple[Params | None, Finding]:
    try:
        params = load_params(root / "params.yaml")
    except MixDPOError as error:
        return None, Finding("params", "fail", str(error), "mend params.yaml, or `mixdpo profile use demo`")
    return params, Finding("params", "ok", f"params.yaml fits: profile {params.profile}")


__all__ = ["Finding", "examine"]
