"""From what a person writes for a policy (a directory, or a reference) to a directory on this machine."""

from __future__ import annotations

from pathlib import Path

from mixdpo.errors import RegistryError
from mixdpo.registry.location import registry_location
from mixdpo.registry.registry import Registry


def resolve_policy(reference: str | Path, registry: Registry | None = None) -> Path:
    """The directory of a policy: `reference` itself where it exists, else the fetched version that it refers to.

    References are looked up in `registry`, by default $MIXDPO_REGISTRY or the user's own (`registry_location`). A path
    wins.

    Raises:
        RegistryError: neither is there; says what was tried.
        StorageError: it cannot be fetched to the cache.
    """
    path = Path(reference)
    if path.exists():
        return path
    try:
        return (registry or Registry(registry_location())).materialise(str(reference))
    except RegistryError as error:
        raise RegistryError(
            f"no policy {str(reference)!r}: there is no directory {path.absolute()}, and as a reference: {error}"
        ) from error
