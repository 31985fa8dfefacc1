"""The few figures by which people compare versions, out of the metrics in their lineage, and which way is better.

Lineage may come from any mixdpo: what is not there, or is no number, is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mixdpo.registry.manifest import Manifest


class Figure(NamedTuple):
    value: float
    higher_is_better: bool


def key_figures(manifest: Manifest) -> dict[str, Figure]:
    """Name → figure, of the policy that the version holds."""
    metrics, policy = manifest.lineage.get("metrics"), policy_name(manifest)
    found: dict[str, Figure] = {}
    for name, value, higher in _candidates(metrics, policy):
        if isinstance(value, float) and math.isfinite(value):
            found[name] = Figure(value, higher)
    return found


def policy_name(manifest: Manifest) -> str | None:
    """What the version's policy was called in its run."""
    name = at(manifest.lineage, "params", "registry", "policy")
    return name if isinstance(name, str) else None


def at(value: Any, *keys: str) -> Any:
    """What is at a path of keys; None where it leads nowhere."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _candidates(metrics: Any, policy: str | None) -> Iterator[tuple[str, Any, bool]]:
    if policy is None:
        return
    own = at(metrics, "policies", policy)
    yield "held-out log-likelihood (nats)", at(own, "preference", "log_likelihood", "mean"), True
    yield "held-out accuracy", at(own, "preference", "accuracy", "mean"), True
    yield "calibration error", at(own, "preference", "calibration_error"), False
    for dimension in _keys(own, "rewards", "judge"):
        yield f"judge {dimension}", at(own, "rewards", "judge", dimension, "mean"), True
    for style in _keys(metrics, "styles"):
        served = at(metrics, "styles", style, policy)
        yield f"{style}, a stranger", at(served, "prior", "reward", "mean"), True
        known = [m for m in _keys(served, "few_shot") if re.fullmatch("[0-9]{1,9}", m)]
        for m in sorted(known, key=int)[-1:]:
            yield f"{style}, {m} known", at(served, "few_shot", m, "reward", "mean"), True
    yield "KL to SFT (nats)", at(own, "cost", "kl", "mean"), False


def _keys(value: Any, *keys: str) -> list[str]:
    found = at(value, *keys)
    return list(found) if isinstance(found, dict) else []
