"""Lost and damaged blobs and manifests, put back from copies on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mixdpo.errors import DataError
from mixdpo.files import file_digest
from mixdpo.registry.audit import Damage, audit
from mixdpo.registry.log import State
from mixdpo.registry.store import Store, Stored, stream_digest


@dataclass(frozen=True)
class Repaired:
    mended: list[Damage]
    left: list[Damage]  # no copy of it was found


def repair(store: Store, state: State, places: Iterable[Path]) -> Repaired:
    """Put back what the log that folded to `state` refers to and is lost or damaged, from files below `places`.

    A copy is known by its sha256, whatever its name, so any directory that was ever registered, fetched or backed up
    will do. What is damaged is removed only once its copy is found.

    Raises:
        DataError: one of the places is no directory.
    """
    copies, mended = _Copies(places), list[Damage]()
    while True:
        damage = audit(store, state).damage
        found = [(each, copy) for each in damage if (copy := copies.find(each)) is not None]
        if not found:
            return Repaired(mended, damage)
        for each, copy in found:
            _put_back(store, each, copy)
            mended.append(each)
        # a manifest that was put back may name blobs that are damaged too


def _put_back(store: Store, damage: Damage, copy: Path) -> None:
    try:
        with store.open(damage.key) as stream:
            if stream_digest(stream) == damage.sha256:  # someone else was quicker
                return
        store.remove(Stored(damage.key, 0, 0.0))
    except FileNotFoundError:
        pass
    store.put_once(damage.key, copy, damage.sha256)


class _Copies:
    """Plain files below some directories, by size, and by digest once they were read."""

    def __init__(self, places: Iterable[Path]) -> None:
        self._of_size: dict[int, list[Path]] = {}
        self._named: dict[str, list[Path]] = {}
        self._digests: dict[Path, str] = {}
        for path in _plain_files(places):
            self._of_size.setdefault(path.stat().st_size, []).append(path)
            self._named.setdefault(path.name.split(".")[0], []).append(path)

    def find(self, damage: Damage) -> Path | None:
        """A file with the bytes that are missing; where nobody knows how many these are, one named by their digest."""
        candidates = self._named.get(damage.sha256, []) if damage.size is None else self._of_size.get(damage.size, [])
        for path in candidates:
            if path not in self._digests:
                self._digests[path] = file_digest(path)
            if self._digests[path] == damage.sha256:
                return path
        return None


def _plain_files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if not place.is_dir():
            raise DataError(f"{place} is not a directory; name one that holds copies of what was registered")
        for directory, _, names in os.walk(place):
            for path in (Path(directory, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    yield path
