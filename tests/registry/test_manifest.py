from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError
from mixdpo.files import canonical_json
from mixdpo.registry.manifest import LIMIT, describe_files, parse_manifest
from mixdpo.registry.safety import plain_files


def parsed(value: object) -> object:
    body = canonical_json(value)
    return parse_manifest(body, hashlib.sha256(body).hexdigest(), "manifests/x.json")


VALID = {
    "schema": 1,
    "name": "reviews",
    "kind": "mixture",
    "files": {"mixture.json": {"sha256": "0" * 64, "size": 3}},
    "lineage": {},
}


def test_the_manifest_is_what_the_files_are(policy: Path) -> None:
    files = plain_files(policy)
    manifest = describe_files("reviews", files, {"profile": "demo"})
    for path, content in manifest.files.items():
        body = (policy / path).read_bytes()
        assert (content.sha256, content.size) == (hashlib.sha256(body).hexdigest(), len(body))
    assert manifest.files.keys() == files.keys()
    assert manifest.size == sum(path.stat().st_size for path in files.values())


def test_identity_is_of_content_alone_and_of_all_of_it(policy: Path) -> None:
    files = plain_files(policy)
    digest = describe_files("reviews", files, {"a": 1, "b": {"c": 2}}).digest
    assert describe_files("reviews", dict(reversed(files.items())), {"b": {"c": 2}, "a": 1}).digest == digest
    assert describe_files("others", files, {"a": 1, "b": {"c": 2}}).digest != digest
    assert describe_files("reviews", files, {"a": 1, "b": {"c": 3}}).digest != digest
    (policy / "mixture.json").write_text('{"schema": 1, "experts": 3}\n', encoding="utf-8")
    assert describe_files("reviews", files, {"a": 1, "b": {"c": 2}}).digest != digest


def test_what_is_written_is_read_back(policy: Path) -> None:
    manifest = describe_files("reviews", plain_files(policy), {"metrics": {"reward": 0.1 + 0.2, "ünit": "nats"}})
    assert parse_manifest(manifest.to_bytes(), manifest.digest, "here") == manifest


def test_metrics_that_are_not_finite_are_refused(policy: Path) -> None:
    with pytest.raises(RegistryError, match=r"^the lineage of reviews is not JSON \(.*\); metrics must be finite"):
        describe_files("reviews", plain_files(policy), {"metrics": {"reward": math.nan}})


def test_a_name_is_plain(policy: Path) -> None:
    with pytest.raises(RegistryError, match=r"^\.\./x cannot be registered: name: String should match pattern"):
        describe_files("../x", plain_files(policy), {})


def test_other_bytes_than_registered_are_refused() -> None:
    found = hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(RegistryError) as error:
        parse_manifest(b"{}", "0" * 64, "manifests/x.json of /registry")
    assert str(error.value) == (
        f"manifests/x.json of /registry was changed: expected sha256 {'0' * 64}, got {found}; "
        "restore it from a copy of the registry, or delete that file and register the same directory again"
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"schema": 2}, "schema: Input should be 1"),
        ({"kind": "other"}, "kind: Input should be 'mixture'"),
        ({"files": {}}, "files: Dictionary should have at least 1 item"),
        ({"files": {"a.json": {"sha256": "0" * 64, "size": -1}}}, "size: Input should be greater than or equal to 0"),
        ({"files": {"a.json": {"sha256": "0" * 64, "size": 1 << 50}}}, "size: Input should be less than"),
        ({"files": {"a.json": {"sha256": "../../../etc/passwd", "size": 1}}}, "sha256: String should match pattern"),
        ({"files": {"a.json": {"sha256": "0" * 64, "size": "1"}}}, "size: Input should be a valid integer"),
        ({"files": {f"{i}.json": {"sha256": "0" * 64, "size": 1} for i in range(10_001)}}, "at most 10000 items"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_what_is_no_manifest_is_refused(change: dict[str, object], fault: str) -> None:
    parsed(VALID)
    with pytest.raises(RegistryError, match=rf"^manifests/x\.json is not a manifest that this mixdpo reads: .*{fault}"):
        parsed({**VALID, **change})


def test_an_endless_or_deep_manifest_is_refused() -> None:
    with pytest.raises(RegistryError, match=f"^here is above {LIMIT} bytes, too large for a manifest"):
        parse_manifest(bytes(LIMIT + 1), "0" * 64, "here")
    body = b'{"lineage":' + b"[" * 100_000
    with pytest.raises(RegistryError, match="is not a manifest"):
        parse_manifest(body, hashlib.sha256(body).hexdigest(), "here")
    assert json.loads(canonical_json(VALID)) == VALID
