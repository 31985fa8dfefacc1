"""The registry that a project's params.yaml means, with what it asks of signatures, and the key that it signs with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mixdpo.registry.location import registry_location
from mixdpo.registry.registry import Registry
from mixdpo.registry.trust import Trust
from mixdpo.registry.variables import SIGNER

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from mixdpo.config.outcome import Registry as Settings


def open_registry(settings: Settings | None, root: Path, location: str | None = None) -> Registry:
    """The registry of the project in `root`, or the one at `location` under the same rules.

    Args:
        settings: `registry` of params.yaml; None outside a project.
    """
    url = location if location is not None or settings is None else settings.url
    signing = settings and settings.signing
    trust = Trust(signing.trusted, signing.required) if signing else None
    return Registry(registry_location(url, root), trust)


def signing_key(settings: Settings | None, root: Path) -> Ed25519PrivateKey | None:
    """The private key that is to sign: registry.signing.key, else $MIXDPO_SIGNING_KEY; None where neither names one.

    Raises:
        RegistryError: what is named is no key, or others may read it.
    """
    given = (settings and settings.signing and settings.signing.key) or os.environ.get(SIGNER)
    if not given:
        return None
    from mixdpo.registry.keys import read_key

    return read_key(given, root)
