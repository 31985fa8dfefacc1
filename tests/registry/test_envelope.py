from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import RegistryError
from mixdpo.files import canonical_json
from mixdpo.registry.envelope import LIMIT, PAYLOAD_TYPE, check_seal, encoded, seal
from mixdpo.registry.keys import key_id

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
MANIFEST = hashlib.sha256(b"manifest").hexdigest()
SEALED = seal("reviews", MANIFEST, KEY)


def check(body: bytes, name: str = "reviews", manifest: str = MANIFEST) -> None:
    check_seal(body, name, manifest, PUBLIC, "the envelope")


def edited(**values: Any) -> bytes:
    return canonical_json({**json.loads(SEALED), **values})


def signed(statement: Any, kind: str = PAYLOAD_TYPE) -> bytes:
    """An envelope that is in order but for what it says."""
    payload = canonical_json(statement)
    signature = base64.b64encode(KEY.sign(encoded(kind, payload))).decode()
    return edited(payload=base64.b64encode(payload).decode(), signatures=[{"keyid": key_id(PUBLIC), "sig": signature}])


def test_the_encoding_is_that_of_the_specification() -> None:
    # the test vector of DSSE's protocol.md
    assert encoded("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_a_statement_names_the_manifest_and_signing_again_gives_the_same_bytes() -> None:
    check(SEALED)
    assert seal("reviews", MANIFEST, KEY) == SEALED
    statement = json.loads(base64.b64decode(json.loads(SEALED)["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "reviews", "digest": {"sha256": MANIFEST}}]


def test_it_holds_for_one_manifest_of_one_name_only() -> None:
    with pytest.raises(RegistryError, match=f"signs reviews sha256:{MANIFEST}, expected reviews sha256:{'0' * 64}"):
        check(SEALED, manifest="0" * 64)
    with pytest.raises(RegistryError, match=r"signs reviews .*expected films"):
        check(SEALED, name="films")


def test_it_holds_for_its_own_key_only() -> None:
    with pytest.raises(RegistryError, match=r"^the envelope is not a signature by the key that it is named after"):
        check_seal(SEALED, "reviews", MANIFEST, Ed25519PrivateKey.generate().public_key(), "the envelope")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "is no signature that this mixdpo reads: .*Invalid JSON"),
        (b"[" * 100_000, "above 65536 bytes"),
        (b"[" * 60_000, "is no signature that this mixdpo reads"),
        (edited(payloadType="text/plain"), "payloadType: Input should be"),
        (edited(payload="not base64"), "is not a signature by the key"),
        (edited(signatures=[]), "signatures: "),
        (edited(more=1), "more: Extra inputs"),
        (signed({"_type": "other"}), "_type: Input should be"),
        (signed("text"), "is no signature that this mixdpo reads"),
        (SEALED + b" " * LIMIT, "above 65536 bytes"),
    ],
)
def test_what_is_no_signature_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(RegistryError, match=rf"^the envelope .*{told}"):
        check(body)


def test_a_signature_of_another_payload_type_is_none() -> None:
    """The same bytes signed as another type, as another program of the key's owner may do."""
    payload = json.loads(SEALED)["payload"]
    signature = base64.b64encode(KEY.sign(encoded("text/plain", base64.b64decode(payload)))).decode()
    with pytest.raises(RegistryError, match="is not a signature by the key"):
        check(edited(signatures=[{"keyid": key_id(PUBLIC), "sig": signature}]))


@given(st.integers(0, len(SEALED) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_changes_nothing_that_is_signed(place: int, bit: int) -> None:
    flipped = bytearray(SEALED)
    flipped[place] ^= 1 << bit
    try:
        check(bytes(flipped))
    except RegistryError:
        return
    # `keyid` is a hint, which DSSE leaves unsigned: the file's name and the trusted key decide
    assert {**json.loads(flipped), "signatures": None} == {**json.loads(SEALED), "signatures": None}
    assert json.loads(flipped)["signatures"][0]["sig"] == json.loads(SEALED)["signatures"][0]["sig"]


@given(st.binary(max_size=200) | st.text().map(str.encode) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["payload", "signatures", "keyid", "sig"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_refused_with_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(RegistryError, match=r"^the envelope"):
        check(body)
