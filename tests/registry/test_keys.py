from __future__ import annotations

import base64
import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from mixdpo.errors import RegistryError
from mixdpo.registry.keys import key_id, new_key, parse_public, public_text, read_key


def test_a_new_key_is_for_its_owner_alone_and_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing.pem"
    key = new_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for again in (read_key(str(path)), read_key("signing.pem", path.parent), read_key(path.read_text("ascii"))):
        assert public_text(again.public_key()) == public_text(key.public_key())


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    new_key(tmp_path / "key.pem")
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(RegistryError, match=r"key\.pem exists; keys are never overwritten"):
        new_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    new_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(RegistryError, match="may be read by others, so it is no secret; `chmod 600"):
        read_key(str(tmp_path / "key.pem"))


def test_what_is_no_key_is_refused_and_never_repeated(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    broken = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    for body in (other, broken, b"secret", b""):
        path = tmp_path / "key.pem"
        path.write_bytes(body)
        path.chmod(0o600)
        with pytest.raises(RegistryError, match="is no Ed25519 key in PEM without a passphrase") as error:
            read_key(str(path))
        assert "c2VjcmV0" not in str(error.value)
    with pytest.raises(RegistryError, match=r"^\$MIXDPO_SIGNING_KEY is no Ed25519 key") as error:
        read_key(broken.decode())
    assert "c2VjcmV0" not in str(error.value)
    with pytest.raises(RegistryError, match=r"none\.pem cannot be read \(No such file.*mixdpo keygen"):
        read_key(str(tmp_path / "none.pem"))


def test_a_public_key_is_one_line_of_text(tmp_path: Path) -> None:
    key = new_key(tmp_path / "key.pem").public_key()
    assert public_text(parse_public(public_text(key))) == public_text(key)
    # the id of RFC 8410's SubjectPublicKeyInfo: a fixed head, then the 32 bytes
    raw = base64.b64decode(public_text(key).removeprefix("ed25519:"))
    assert key_id(key) == hashlib.sha256(bytes.fromhex("302a300506032b6570032100") + raw).hexdigest()


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "ed25519:" + "A" * 43, "A" * 43 + "=", "ed25519:é"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(RegistryError, match="is no public key; expected ed25519: and 44 letters"):
        parse_public(text)
