"""Where the registry is, and where fetched versions are kept."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mixdpo.errors import RegistryError

VARIABLE = "MIXDPO_REGISTRY"


def registry_location(url: str | None = None, base: Path | None = None) -> Path:
    """The registry's directory: `url` (registry.url of params.yaml), else $MIXDPO_REGISTRY, else the user's own.

    The user's own is $XDG_DATA_HOME/mixdpo/registry, by default ~/.local/share/mixdpo/registry. A relative path is
    taken from `base` (default: the current directory); `file://` URLs and `~` are understood.

    Raises:
        RegistryError: a URL that is no directory.
    """
    given, origin = (url, "registry.url") if url else (os.environ.get(VARIABLE), f"${VARIABLE}")
    if not given:
        return _user_directory("XDG_DATA_HOME", ".local/share") / "registry"
    path = given.removeprefix("file://")
    if match := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):  # one letter and a colon is a drive
        raise RegistryError(
            f"{origin} is {given}, but this version of mixdpo keeps registries in directories only, "
            f"not at {match[0]}; give a path, which may be on a shared disk"
        )
    return (base or Path()).joinpath(Path(path).expanduser()).absolute()


def cache_directory() -> Path:
    """Where `materialise` keeps versions: $XDG_CACHE_HOME/mixdpo, by default ~/.cache/mixdpo. May be deleted."""
    return _user_directory("XDG_CACHE_HOME", ".cache")


def _user_directory(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    # the XDG specification has relative paths ignored
    return (Path(given) if os.path.isabs(given) else Path.home() / default) / "mixdpo"
