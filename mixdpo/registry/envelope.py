"""A signature: a DSSE envelope around an in-toto statement that names a manifest by its digest.

The bytes that are signed are DSSE's pre-authentication encoding, so that no payload can pass for one of another type.
Ed25519 signs the same bytes to the same signature: signing twice gives one envelope.
(github.com/secure-systems-lab/dsse, protocol 1; in-toto Statement v1.)
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ConfigDict, Field, ValidationError

from mixdpo.errors import RegistryError
from mixdpo.files import canonical_json
from mixdpo.registry.keys import key_id
from mixdpo.registry.manifest import Digest, Name, Record, faults

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:mixdpo:version:v1"
LIMIT = 64 << 10  # bytes of an envelope


class _Subject(Record):
    name: Name
    digest: dict[Literal["sha256"], Digest]


class _Predicate(Record):
    """Nothing: the manifest that the subject names says all."""


class _Statement(Record):
    model_config = ConfigDict(populate_by_name=True)

    kind: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Annotated[Literal["urn:mixdpo:version:v1"], Field(alias="predicateType")]
    predicate: _Predicate


class _Signature(Record):
    keyid: Digest
    sig: str


class _Envelope(Record):
    payload_type: Annotated[Literal["application/vnd.in-toto+json"], Field(alias="payloadType")]
    payload: str
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=1)]


def seal(name: str, manifest: str, key: Ed25519PrivateKey) -> bytes:
    """The envelope in which `key` signs the manifest with this digest, a version of `name`."""
    payload = canonical_json(
        {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": manifest}}],
            "predicateType": PREDICATE,
            "predicate": {},
        }
    )
    signature = base64.b64encode(key.sign(encoded(PAYLOAD_TYPE, payload))).decode()
    return canonical_json(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": key_id(key.public_key()), "sig": signature}],
        }
    )


def check_seal(body: bytes, name: str, manifest: str, key: Ed25519PublicKey, origin: str) -> None:
    """Make sure that `body` is an envelope in which `key` signs this manifest of `name`. `origin` is for messages.

    Raises:
        RegistryError: it is another thing, of another key, or of another manifest.
    """
    if len(body) > LIMIT:
        raise RegistryError(f"{origin} is above {LIMIT} bytes, too large for a signature; nothing of it is believed")
    try:
        envelope = _Envelope.model_validate_json(body)
        payload = base64.b64decode(envelope.payload, validate=True)
        signature = base64.b64decode(envelope.signatures[0].sig, validate=True)
        key.verify(signature, encoded(envelope.payload_type, payload))
        # not looked into before it is known who wrote it
        subject = _Statement.model_validate_json(payload).subject[0]
    except ValidationError as error:
        raise RegistryError(f"{origin} is no signature that this mixdpo reads: {faults(error)}") from None
    except (InvalidSignature, binascii.Error, ValueError):
        raise RegistryError(
            f"{origin} is not a signature by the key that it is named after: it was changed or made up; sign that "
            "version again, after removing that file"
        ) from None
    if (subject.name, subject.digest["sha256"]) != (name, manifest):
        raise RegistryError(
            f"{origin} signs {subject.name} sha256:{subject.digest['sha256']}, expected {name} sha256:{manifest}; "
            "it was moved there from another version: remove it and sign again"
        )


def encoded(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding.

    >>> encoded("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
