"""What was made again beside what was registered: tables, the policy's files, results, and how far off figures are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mixdpo.files import file_digest, read_json
from mixdpo.layout import Layout
from mixdpo.registry.manifest import METRICS, RUN, STANDING, Manifest


class Apart(NamedTuple):
    """The figure of metrics/evaluation.json that differs most."""

    figure: str  # its keys, joined by dots
    registered: Any
    now: Any

    @property
    def distance(self) -> float:
        """Absolute difference; infinite where one is absent or no number."""
        if _is_number(self.registered) and _is_number(self.now):
            return abs(float(self.registered) - float(self.now))
        return math.inf


@dataclass(frozen=True)
class Comparison:
    """For each thing that the version names, whether it is the same to the byte now."""

    data: dict[str, bool]  # validated table
    policy: dict[str, bool]  # file of the policy
    results: dict[str, bool]  # metrics, and what it showed on held-out prompts
    apart: Apart | None  # None where all figures are the same

    @property
    def identical(self) -> bool:
        return all((*self.data.values(), *self.policy.values(), *self.results.values()))

    def reproduced(self, tolerance: float) -> bool:
        """Whether the data is the same to the byte and no figure is off by more than `tolerance`."""
        return all(self.data.values()) and (self.apart is None or self.apart.distance <= tolerance)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "identical": self.identical}


def compare(manifest: Manifest, clone: Layout, policy: str) -> Comparison:
    """A version with what a run left in `clone`; a file that is absent there is not the same."""
    registered = manifest.lineage.get("data") or {}
    own = {path: clone.policy(policy) / path for path in manifest.files if not path.startswith(RUN)}
    results = {
        path: clone.root / path.removeprefix(RUN)
        if path.startswith(METRICS)
        else clone.standing(policy).with_suffix(Path(path).suffix)
        for path in manifest.files
        if path.startswith((METRICS, STANDING))
    }
    figures = clone.metrics("evaluation")
    return Comparison(
        data={table: _digest(clone.validated(table)) == digest for table, digest in registered.items()},
        policy={path: _digest(file) == manifest.files[path].sha256 for path, file in own.items()},
        results={path: _digest(file) == manifest.files[path].sha256 for path, file in results.items()},
        apart=furthest(manifest.lineage.get("metrics"), read_json(figures) if figures.is_file() else None),
    )


def furthest(registered: Any, now: Any) -> Apart | None:
    """The leaf that differs most between two values of JSON; None where they are equal.

    >>> furthest({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]})
    Apart(figure='a.1', registered=2.0, now=2.5)
    """
    one, two = dict(_leaves(registered)), dict(_leaves(now))
    differing = [
        Apart(key, one.get(key), two.get(key)) for key in one.keys() | two.keys() if one.get(key) != two.get(key)
    ]
    return max(differing, key=lambda each: (each.distance, each.figure), default=None)


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield prefix, value
        return
    for key, each in items:
        yield from _leaves(each, f"{prefix}.{key}" if prefix else str(key))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _digest(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None
