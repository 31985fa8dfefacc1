"""The data that lie here beside those of a registered version. No stage of dvc.yaml: it depends on the registry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mixdpo.config import Params
from mixdpo.config.data import AnnotatedPairs, Drift
from mixdpo.data.drift import Shift, compare
from mixdpo.data.profile import Profile
from mixdpo.errors import ConfigError, DataError, ValidationStop
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.registry import Registry, Version, open_registry
from mixdpo.registry.manifest import METRICS

HEADER = ("column", "measure", "value", "by chance below", "verdict", "then → now")


@dataclass(frozen=True)
class Compared:
    """What one part of the data (reviews, or preferences with scores) was compared with, and what came of it."""

    part: str
    against: str | None  # reviews@v3 (staging); None where there was nothing to compare with
    why_not: str  # then
    shifts: tuple[Shift, ...]

    @property
    def moved(self) -> tuple[Shift, ...]:
        return tuple(shift for shift in self.shifts if shift.verdict != "ok")

    def of(self, verdict: str) -> tuple[Shift, ...]:
        return tuple(shift for shift in self.shifts if shift.verdict == verdict)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """A table for people, under HEADER."""
        return [
            (each.name, each.measure, f"{each.value:.3f}", f"{each.chance:.3f}", each.verdict, each.told)
            for each in self.shifts
        ]

    def __str__(self) -> str:
        if self.against is None:
            return f"{self.part}: not compared: {self.why_not}"
        names = ", ".join(shift.name for shift in self.moved)
        told = f"{names} moved" if names else f"none of {len(self.shifts)} columns moved"
        return f"{self.part}: {told} (against {self.against})"

    def refuse(self) -> None:
        """Raises ValidationStop where a column moved farther than drift.refuse allows."""
        if not (refused := self.of("refuse")):
            return
        lines = "\n".join(f"  {each.name}: {each.measure} {each.value:.3f}; {each.told}" for each in refused)
        raise ValidationStop(
            f"the data drifted from those of {self.against} beyond drift.refuse:\n{lines}\n"
            "Nothing was trained on them. Look at what came since (the newest batch of arrivals). Where the "
            "change is wanted, raise drift.refuse or set it to null, and run again: later data are then compared with "
            "those of the version that comes of it"
        )


def compare_with_version(params: Params, layout: Layout, part: str, profile: Path | None = None) -> Compared:
    """metrics/profile-PART.json, or another `profile`, beside that of the version that drift.against points to.

    Raises:
        ConfigError: params.yaml has no section drift.
        DataError: the profile is not there, or is none. RegistryError: the version's is damaged.
    """
    limits = _limits(params, part)
    path = profile or layout.profile(part)
    now = _parse(read_json(path), str(path))
    registry, reference = open_registry(params.registry, layout.root), f"{params.registry.name}@{limits.against}"
    version = _version(registry, reference)
    if version is None:
        return Compared(part, None, f"there is no {reference} yet", ())
    name = f"{METRICS}{layout.profile(part).name}"
    try:
        then = _parse(json.loads(registry.read(version, name)), f"{name} of {version.reference}")
    except FileNotFoundError:
        return Compared(part, None, f"{version.reference} has no {name}, so it is older than profiles are", ())
    return Compared(part, f"{version.reference} ({limits.against})", "", tuple(compare(then, now, limits)))


def _limits(params: Params, part: str) -> Drift:
    """Limits for one part: what models made that are trained anew in each run moves with them, and is only told."""
    if params.drift is None:
        raise ConfigError("params.yaml says nothing of drift; give it a section with against, warn and refuse")
    ours = part == "preferences" and isinstance(params.preferences.source, AnnotatedPairs)
    return params.drift.model_copy(update={"refuse": None}) if ours else params.drift


def _version(registry: Registry, reference: str) -> Version | None:
    name, _, alias = reference.partition("@")
    if name not in registry.names() or registry.history(name).target(alias) is None:
        return None
    return registry.resolve(reference)


def _parse(values: object, origin: str) -> Profile:
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{origin} is not a profile of data ({error}); run `mixdpo describe` again") from error
