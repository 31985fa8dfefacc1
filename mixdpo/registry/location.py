"""Where the registry is, and where fetched versions are kept."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mixdpo.errors import RegistryError
from mixdpo.registry.file_store import FileStore
from mixdpo.registry.s3_location import S3_FORM, S3Location, parse_s3_location
from mixdpo.registry.store import Store

VARIABLE = "MIXDPO_REGISTRY"


Location = Path | S3Location


def registry_location(url: str | None = None, base: Path | None = None) -> Location:
    """Where the registry is: `url` (registry.url of params.yaml), else $MIXDPO_REGISTRY, else the user's own directory.

    The user's own is $XDG_DATA_HOME/mixdpo/registry, by default ~/.local/share/mixdpo/registry. A relative path is
    taken from `base` (default: the current directory); `s3://` and `file://` URLs and `~` are understood.

    Raises:
        RegistryError: a URL of another kind, or one that is not complete.
    """
    given, origin = (url, "registry.url") if url else (os.environ.get(VARIABLE), f"${VARIABLE}")
    if not given:
        return _user_directory("XDG_DATA_HOME", ".local/share") / "registry"
    return parse_location(given, origin, base)


def parse_location(given: str, origin: str, base: Path | None = None) -> Location:
    """A directory or a bucket that `origin` (registry.url, say) names, as `registry_location` reads it."""
    if given.startswith("s3://"):
        return parse_s3_location(given, origin)
    path = given.removeprefix("file://")
    if match := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):  # one letter and a colon is a drive
        raise RegistryError(
            f"{origin} is a place of the kind {match[0]}, but only directories and buckets (s3:) are "
            f"known here; give a path, which may be on a shared disk, or {S3_FORM}"
        )
    return (base or Path()).joinpath(Path(path).expanduser()).absolute()


def open_store(location: Location) -> Store:
    """The store at a location; what it needs is imported here.

    Raises:
        RegistryError: a file in place of the directory. StorageError: settings of AWS that cannot be used.
    """
    if isinstance(location, Path):
        return FileStore(location)
    from mixdpo.registry.s3_store import S3Store

    return S3Store(location)


def check_bucket(location: S3Location) -> str:
    """What `mixdpo doctor` says of a bucket that answers, takes these credentials, and keeps what was put first.

    Puts one small object (`s3_probe.KEY`) where none was put before. Raises StorageError or TransientError otherwise.
    """
    from mixdpo.registry.s3_store import S3Store

    store = S3Store(location)
    names = {stored.key.split("/")[1] for stored in store.list("log/")}
    store.check_writable()
    return f"{location} can be read and written, and keeps what was put first; it holds {len(names)} names"


def cache_directory() -> Path:
    """Where `materialise` keeps versions: $XDG_CACHE_HOME/mixdpo, by default ~/.cache/mixdpo. May be deleted."""
    return _user_directory("XDG_CACHE_HOME", ".cache")


def _user_directory(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    # the XDG specification has relative paths ignored
    return (Path(given) if os.path.isabs(given) else Path.home() / default) / "mixdpo"
