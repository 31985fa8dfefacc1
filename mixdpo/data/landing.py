"""The place where new files land: a directory or a bucket, read as the registry reads its own, and never written to."""

from __future__ import annotations

from pathlib import Path

from mixdpo.config.data import Arrivals
from mixdpo.errors import DataError
from mixdpo.files import read_json, write_json
from mixdpo.registry.location import open_store, parse_location
from mixdpo.registry.store import Store, Stored


def open_landing(settings: Arrivals, root: Path) -> Store:
    """The store at `arrivals.url`, a relative path of which is taken from `root`.

    Raises:
        DataError: there is no such directory. RegistryError: no URL of a directory or a bucket.
    """
    location = parse_location(settings.url, "arrivals.url", root)
    if isinstance(location, Path) and not location.is_dir():
        raise DataError(f"{location}, where files are to arrive, is no directory; make it, or correct arrivals.url")
    return open_store(location)


class Digests:
    """sha256 of landed files by name, size and time, so that what was read once is known without reading it again."""

    def __init__(self, path: Path, location: str) -> None:
        self._path, self._location = path, location
        try:
            kept = read_json(path)
        except DataError:  # not there, or cut short: it only saves time
            kept = {}
        self._kept: dict[str, list[object]] = kept.get(location, {}) if isinstance(kept, dict) else {}
        self._seen: dict[str, list[object]] = {}

    def get(self, stored: Stored) -> str | None:
        match self._kept.get(stored.key):
            case [size, modified, str(sha256)] if (size, modified) == (stored.size, stored.modified):
                self._seen[stored.key] = [size, modified, sha256]
                return sha256
        return None

    def put(self, stored: Stored, sha256: str) -> None:
        self._seen[stored.key] = [stored.size, stored.modified, sha256]

    def save(self) -> None:
        """Keep those that were asked for; others have gone from the landing place."""
        write_json(self._path, {self._location: self._seen})
