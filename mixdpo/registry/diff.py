"""What differs between two versions: parameters, data, judges, code, figures, files, packages. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from mixdpo.registry.figures import at, key_figures
from mixdpo.registry.manifest import Manifest

DIGESTED = ("data", "arrivals", "rewards", "start")  # sections of a lineage that say by digests what went in


class Change(NamedTuple):
    """One thing in both; None where it is absent."""

    before: Any
    after: Any


@dataclass(frozen=True)
class Moved:
    """A figure in both. `better` is None where it is the same or only one version has it."""

    before: float | None
    after: float | None
    better: bool | None


@dataclass(frozen=True)
class Difference:
    """What is the same in both is left out, of figures too.

    Attributes:
        same_terms: whether both were evaluated on the same prompts and by the same judges; None where it is not known.
            Figures of unlike terms cannot be compared; `mixdpo promote` judges the champion again then.
    """

    params: dict[str, Change]
    inputs: dict[str, Change]
    code: dict[str, Change]
    figures: dict[str, Moved]
    files: dict[str, Change]
    packages: dict[str, Change]
    same_terms: bool | None

    def record(self) -> dict[str, Any]:
        """As JSON; a change is [before, after]."""
        return asdict(self)


def difference(
    before: Manifest,
    after: Manifest,
    packages: tuple[Mapping[str, str], Mapping[str, str]],
    terms: tuple[str | None, str | None],
) -> Difference:
    """From one version to another.

    Args:
        packages: name → version, of each.
        terms: digest of what each was evaluated on; None where it is not known.
    """
    one, two = before.lineage, after.lineage
    return Difference(
        params=_changes(flat(one.get("params")), flat(two.get("params"))),
        inputs=_changes(*(flat({name: lineage.get(name) for name in DIGESTED}) for lineage in (one, two))),
        code=_changes(flat({"git": one.get("git")}), flat({"git": two.get("git")})),
        figures=_figures(before, after),
        files=_changes(*({path: each.sha256 for path, each in manifest.files.items()} for manifest in (before, after))),
        packages=_changes(*packages),
        same_terms=None if None in terms else terms[0] == terms[1],
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists and numbers stay whole. Nothing for None.

    >>> flat({"a": {"b": 1, "c": [2]}})
    {'a.b': 1, 'a.c': [2]}
    """
    if not isinstance(value, dict):
        return {} if value is None and not prefix else {prefix: value}
    found: dict[str, Any] = {}
    for key, each in value.items():
        found |= flat(each, f"{prefix}.{key}" if prefix else str(key))
    return found


def packages_of(bill: bytes) -> dict[str, str]:
    """Name → version, out of a version's list of packages. Raises ValueError where it is none."""
    try:
        return {str(each["name"]): str(each["version"]) for each in json.loads(bill)["components"]}
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no list of packages ({error!r})") from None


def lineage_packages(manifest: Manifest) -> dict[str, str]:
    """The few packages that a lineage names itself."""
    packages = at(manifest.lineage, "packages")
    return {str(name): str(version) for name, version in packages.items()} if isinstance(packages, dict) else {}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    keys = sorted(before.keys() | after.keys())
    return {key: Change(before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _figures(before: Manifest, after: Manifest) -> dict[str, Moved]:
    one, two = key_figures(before), key_figures(after)
    found: dict[str, Moved] = {}
    for name in dict.fromkeys((*two, *one)):
        own, other = two.get(name), one.get(name)
        if own is None or other is None:
            found[name] = Moved(other and other.value, own and own.value, None)
        elif own.value != other.value:
            found[name] = Moved(other.value, own.value, (own.value > other.value) == own.higher_is_better)
    return found
