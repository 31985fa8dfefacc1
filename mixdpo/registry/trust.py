"""Who must have signed a version before it is used: from params.yaml (registry.signing) and from the environment."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from mixdpo.errors import RegistryError
from mixdpo.registry.store import Store, signature_key
from mixdpo.registry.variables import SIGNER, TRUSTED

if TYPE_CHECKING:  # what only reads unsigned versions needs no `cryptography`
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Trust:
    """A policy on signatures.

    Attributes:
        keys: whose signatures count, as `mixdpo keygen` prints them.
        required: whether a version without one of them is refused. A false one is refused in any case.
    """

    keys: tuple[str, ...] = ()
    required: bool = False

    @classmethod
    def of_environment(cls) -> Self:
        """$MIXDPO_TRUSTED_KEYS: where it is set, if only to nothing, every version must be signed by one of them."""
        given = os.environ.get(TRUSTED)
        return cls() if given is None else cls(tuple(given.replace(",", " ").split()), required=True)

    def check(self, store: Store, name: str, manifest: str) -> None:
        """Refuse a version that is not signed as this policy asks.

        Raises:
            RegistryError: no signature of a trusted key, or a false one; or a trusted key that is none.
        """
        found = [signed(store, name, manifest, key) for key in self.keys]
        if any(found) or not self.required:
            return
        others = f"but by {len(named)} others" if (named := signers(store, manifest)) else "nor by anyone else"
        raise RegistryError(
            f"{name}@sha256:{manifest} is not signed by a trusted key, {others}; trusted are "
            f"{', '.join(self.keys) or 'none'} (registry.signing, ${TRUSTED}). Let an owner of one run "
            f"`mixdpo sign {name}@sha256:{manifest[:12]}`, or do not use it"
        )

    def ids(self) -> dict[str, str]:
        """Public key → how its signatures are named."""
        if not self.keys:
            return {}
        from mixdpo.registry.keys import key_id, parse_public

        return {key: key_id(parse_public(key)) for key in self.keys}

    def check_signer(self, key: Ed25519PrivateKey | None) -> None:
        """Refuse to publish, where signatures are required, what nobody could use. Raises RegistryError."""
        if not self.required:
            return
        from mixdpo.registry.keys import public_text

        if key is None or public_text(key.public_key()) not in self.keys:
            fault = "there is no key to sign with" if key is None else "the signing key is none of those trusted"
            raise RegistryError(
                f"signatures are required, but {fault}, so nobody could use what is registered: name a trusted key in "
                f"registry.signing.key or ${SIGNER}"
            )


def sign(store: Store, name: str, manifest: str, key: Ed25519PrivateKey) -> bool:
    """Put the signature of `key` beside a manifest; False where it is there already.

    Raises:
        RegistryError: something else is in its place.
    """
    from mixdpo.registry.envelope import seal
    from mixdpo.registry.keys import key_id, public_text

    public = key.public_key()
    body = seal(name, manifest, key)
    if store.put_once(signature_key(manifest, key_id(public)), body, hashlib.sha256(body).hexdigest()):
        return True
    return not signed(store, name, manifest, public_text(public))


def signed(store: Store, name: str, manifest: str, key: str) -> bool:
    """Whether the public key signed this manifest. Raises RegistryError where what says so is false."""
    from mixdpo.registry.envelope import LIMIT, check_seal
    from mixdpo.registry.keys import key_id, parse_public

    public = parse_public(key)
    place = signature_key(manifest, key_id(public))
    try:
        body = store.read(place, LIMIT + 1)
    except FileNotFoundError:
        return False
    check_seal(body, name, manifest, public, f"{place} of {store.location}")
    return True


def signers(store: Store, manifest: str) -> list[str]:
    """Ids of the keys that are said to have signed a manifest; nothing is verified."""
    return [each.key.rpartition("/")[2].removesuffix(".json") for each in store.list(signature_key(manifest, ""))]
