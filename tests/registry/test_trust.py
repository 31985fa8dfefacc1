"""Signatures are asked for wherever a version is used, and nothing is believed that lacks one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mixdpo.errors import RegistryError
from mixdpo.registry import Registry, Version
from mixdpo.registry.decision import Ruling
from mixdpo.registry.keys import key_id, public_text
from mixdpo.registry.store import blob_key, manifest_key, signature_key
from mixdpo.registry.trust import Trust
from mixdpo.registry.variables import SIGNER, TRUSTED

Publish = Callable[..., Version]
ANN, BOB = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))


def trust(*keys: Ed25519PrivateKey, required: bool = True) -> Trust:
    return Trust(tuple(public_text(key.public_key()) for key in keys), required)


def uses(registry: Registry, tmp_path: Path) -> Iterator[Callable[[], object]]:
    """All that uses reviews@v1, which is not what `staging` points to."""
    yield lambda: registry.pull("reviews@v1", tmp_path / "there")
    yield lambda: registry.materialise("reviews@v1")
    yield lambda: registry.set_alias("reviews", "staging", "v1", "back")
    yield lambda: registry.rollback("reviews", "staging", "worse")
    yield lambda: registry.promote(registry.resolve("reviews@v1"), "production", "unsigned", never)


def never(champion: Version | None) -> Ruling:
    raise AssertionError(f"asked about {champion}, though the challenger is not signed")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (TRUSTED, SIGNER):
        monkeypatch.delenv(variable, raising=False)


def test_unsigned_versions_are_refused_wherever_they_are_used(publish: Publish, location: Path, tmp_path: Path) -> None:
    publish(1)
    publish(2)
    strict = Registry(location, trust(ANN))
    for use in uses(strict, tmp_path):
        with pytest.raises(RegistryError, match="is not signed by a trusted key, nor by anyone else; trusted are ed25"):
            use()
    assert Registry(location).resolve("reviews@staging").number == 2
    for reference in ("reviews@v1", "reviews@v2"):
        strict.sign(reference, BOB)
    for use in uses(strict, tmp_path):
        with pytest.raises(RegistryError, match="is not signed by a trusted key, but by 1 others"):
            use()
    assert [new for _, new in (strict.sign("reviews@v1", ANN), strict.sign("reviews@v1", ANN))] == [True, False]
    for use in (strict.pull("reviews@v1", tmp_path / "there"), strict.materialise("reviews@v1")):
        assert (use / "mixture.json").is_file()
    assert strict.set_alias("reviews", "staging", "v1", "signed").number == 1


def test_the_environment_asks_for_signatures_too(
    publish: Publish, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(1)
    monkeypatch.setenv(TRUSTED, "")
    with pytest.raises(RegistryError, match="trusted are none"):
        Registry(location).materialise("reviews")
    monkeypatch.setenv(TRUSTED, f"{public_text(ANN.public_key())}, {public_text(BOB.public_key())}")
    for strict in (Registry(location), Registry(location, trust(required=False))):
        with pytest.raises(RegistryError, match="is not signed by a trusted key"):
            strict.materialise("reviews")
    Registry(location).sign("reviews", BOB)
    Registry(location).materialise("reviews")
    # what the project asks for holds beside it
    with pytest.raises(RegistryError, match="is not signed by a trusted key, but by 1 others"):
        Registry(location, trust(ANN)).materialise("reviews")
    monkeypatch.setenv(TRUSTED, "nonsense")
    with pytest.raises(RegistryError, match="'nonsense' is no public key"):
        Registry(location).materialise("reviews")


@pytest.mark.parametrize("required", [True, False])
def test_a_false_signature_is_refused_even_where_none_is_asked_for(
    registry: Registry, publish: Publish, location: Path, tmp_path: Path, required: bool
) -> None:
    one, two = publish(1), publish(2)
    registry.sign("reviews@v2", ANN)
    place, other = (location / signature_key(version.digest, key_id(ANN.public_key())) for version in (one, two))
    place.parent.mkdir(parents=True)
    trusting = Registry(location, trust(ANN, required=required))
    for body, told in ((other.read_bytes(), "signs reviews sha256:.*moved there"), (b"{}", "is no signature that")):
        place.write_bytes(body)
        for use in uses(trusting, tmp_path):
            with pytest.raises(RegistryError, match=told):
                use()
        with pytest.raises(RegistryError, match=told):
            trusting.sign("reviews@v1", ANN)


def test_a_version_is_signed_before_it_can_be_seen(location: Path, policy: Path, tmp_path: Path) -> None:
    strict = Registry(location, trust(ANN))
    for key, told in ((None, "there is no key to sign with"), (BOB, "the signing key is none of those trusted")):
        with pytest.raises(RegistryError, match=f"^signatures are required, but {told}"):
            strict.register("reviews", policy, {}, "staging", "unsigned", key=key)
    assert not location.exists()
    version = strict.register("reviews", policy, {}, "staging", "signed", key=ANN)
    place = location / signature_key(version.digest, key_id(ANN.public_key()))
    entry = location / "log/reviews/0000000001.json"
    assert place.stat().st_mtime_ns <= entry.stat().st_mtime_ns
    assert strict.pull("reviews@staging", tmp_path / "there").is_dir()


def test_the_same_of_another_commit_is_refused_where_what_is_there_is_unsigned(location: Path, policy: Path) -> None:
    Registry(location).register("reviews", policy, {"git": "a"}, None, "unsigned")
    with pytest.raises(RegistryError, match="is not signed by a trusted key"):
        Registry(location, trust(ANN)).register("reviews", policy, {"git": "b"}, "staging", "again", key=ANN)
    assert Registry(location).history("reviews").aliases == {}


def test_what_is_signed_was_read(
    registry: Registry, publish: Publish, location: Path, overwrite: Callable[[Path, bytes], None]
) -> None:
    version = publish(1)
    overwrite(location / blob_key(version.manifest.files["mixture.json"].sha256), b"{}")
    with pytest.raises(RegistryError, match=r"mixture\.json was changed"):
        registry.sign("reviews", ANN)
    assert not (location / "signatures").exists()
    assert (location / manifest_key(version.digest)).is_file()


def test_no_library_is_needed_where_no_key_is_named(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(1)
    monkeypatch.setitem(__import__("sys").modules, "mixdpo.registry.keys", None)
    monkeypatch.setitem(__import__("sys").modules, "mixdpo.registry.envelope", None)
    publish(2)
