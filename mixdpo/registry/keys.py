"""Ed25519 keys that sign versions: made, read, and written as text.

A private key is a PEM file that its owner alone may read. It is named by a path, or held by $MIXDPO_SIGNING_KEY itself,
and appears in no message, no log and no params.yaml. A public key is `ed25519:` and 44 letters, fit for params.yaml.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mixdpo.errors import RegistryError
from mixdpo.files import storage_errors
from mixdpo.registry.variables import SIGNER

PREFIX = "ed25519:"
PRIVATE = 0o600


def new_key(path: Path) -> Ed25519PrivateKey:
    """Make a private key and write it to `path`, which must not exist. Raises RegistryError where it does."""
    key = Ed25519PrivateKey.generate()
    body = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # nobody else may read it, from its first byte on
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        except FileExistsError:
            raise RegistryError(f"{path} exists; keys are never overwritten: name another file") from None
        with os.fdopen(descriptor, "wb") as out:
            out.write(body)
    return key


def read_key(given: str, base: Path | None = None) -> Ed25519PrivateKey:
    """The private key that `given` is: PEM text, or a path (relative to `base`).

    Raises:
        RegistryError: no such file, one that others may read, or no Ed25519 key without a passphrase.
    """
    if given.lstrip().startswith("-----BEGIN"):
        return _parse(given.encode(), f"${SIGNER}")
    path = (base or Path()) / Path(given).expanduser()
    try:
        if path.stat().st_mode & 0o077:
            raise RegistryError(f"{path} may be read by others, so it is no secret; `chmod 600 {path}`")
        body = path.read_bytes()
    except OSError as error:
        raise RegistryError(
            f"the signing key {path} cannot be read ({error.strerror}); `mixdpo keygen {path}` makes one"
        ) from None
    return _parse(body, str(path))


def key_id(key: Ed25519PublicKey) -> str:
    """sha256 (hex) of the key as SubjectPublicKeyInfo: how signatures name it."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def public_text(key: Ed25519PublicKey) -> str:
    """`ed25519:BASE64`, for registry.signing.trusted and $MIXDPO_TRUSTED_KEYS."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return PREFIX + base64.b64encode(raw).decode()


def parse_public(text: str) -> Ed25519PublicKey:
    """Raises RegistryError where `text` is not what `public_text` writes."""
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        if text.startswith(PREFIX) and len(raw) == 32:
            return Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        pass
    raise RegistryError(f"{text!r} is no public key; expected {PREFIX} and 44 letters, as `mixdpo keygen` prints them")


def _parse(body: bytes, origin: str) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(body, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise RegistryError(f"{origin} is no Ed25519 key in PEM without a passphrase; `mixdpo keygen FILE` makes one")
    return key
