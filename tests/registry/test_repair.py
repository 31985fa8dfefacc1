"""What is lost or damaged is put back from any copy, which is known by its digest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo.errors import DataError
from mixdpo.registry import Registry, Version
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_store import S3Store
from mixdpo.registry.store import blob_key, manifest_key

Overwrite = Callable[[Path, bytes], None]


@pytest.fixture
def damaged(location: Path, publish: Callable[..., Version], overwrite: Overwrite) -> Version:
    """The second of two versions has lost one file, and another is not what it was."""
    publish(1)
    version = publish(2)
    files = version.manifest.files
    (location / blob_key(files["expert-0.safetensors"].sha256)).unlink()
    overwrite(location / blob_key(files["mixture.json"].sha256), b"{}")
    return version


def test_blobs_come_back_from_the_directory_that_was_registered(
    registry: Registry, damaged: Version, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-2"
    (policy / "expert-0.safetensors").rename(tmp_path / "elsewhere.bin")  # its twin is still there
    done = registry.repair("reviews", [policy])
    files = damaged.manifest.files
    expected = {blob_key(files[path].sha256) for path in ("expert-0.safetensors", "mixture.json")}
    assert ({each.key for each in done.mended}, done.left) == (expected, [])
    registry.verify("reviews")
    assert registry.repair("reviews", [policy]).mended == []


def test_what_has_no_copy_is_named_and_left_as_it_is(registry: Registry, damaged: Version, tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "mixture.json").write_text("not the same")
    (tmp_path / "copies" / "link.json").symlink_to(tmp_path / "policy-2" / "mixture.json")
    done = registry.repair("reviews", [tmp_path / "copies"])
    assert done.mended == []
    assert sorted(each.message.split(" ")[1] for each in done.left) == ["expert-0.safetensors", "mixture.json"]
    assert registry.store.read(blob_key(damaged.manifest.files["mixture.json"].sha256), 9) == b"{}"
    with pytest.raises(DataError, match="nowhere is not a directory; name one that holds copies"):
        registry.repair("reviews", [tmp_path / "nowhere"])


def test_a_manifest_comes_back_from_a_copy_of_the_registry_and_then_its_blobs(
    registry: Registry, damaged: Version, location: Path, tmp_path: Path
) -> None:
    shutil.copytree(location / "manifests", tmp_path / "backup" / "manifests")
    (location / manifest_key(damaged.digest)).unlink()
    done = registry.repair("reviews", [tmp_path / "backup", tmp_path / "policy-2"])
    assert done.mended[0].key == manifest_key(damaged.digest)
    assert (len(done.mended), done.left) == (3, [])
    registry.verify("reviews")


def test_the_cache_is_a_copy(registry: Registry, location: Path, publish: Callable[..., Version]) -> None:
    version = publish(1)
    registry.materialise("reviews")
    shutil.rmtree(location / "blobs")
    (location / manifest_key(version.digest)).unlink()
    done = registry.repair("reviews", [])
    assert (len(done.mended), done.left) == (1 + len(version.manifest.digests) - 1, [])
    registry.verify("reviews")


def test_the_evidence_of_an_entry_is_looked_at_too(
    registry: Registry, location: Path, publish: Callable[..., Version], tmp_path: Path
) -> None:
    from .test_decision import allow

    registry.promote(publish(1), "production", "the first", allow)
    (digest,) = registry.history("reviews").entries[-1].blobs
    body = (location / blob_key(digest)).read_bytes()
    (location / blob_key(digest)).unlink()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / f"{digest}.json").write_bytes(body)
    done = registry.repair("reviews", [tmp_path / "copy"])
    assert [each.message.split(": ")[0] for each in done.mended] == ["evidence of entry 2 is lost"]
    registry.verify("reviews")


def test_a_bucket_is_mended_too(bucket: S3Location, policy: Path) -> None:
    store = S3Store(bucket)
    registry = Registry(store)
    version = registry.register("reviews", policy, json.loads("{}"), "staging", "first")
    for path, body in (("mixture.json", b"{}"), ("expert-0.safetensors", b"cut")):
        key = blob_key(version.manifest.files[path].sha256)
        store.client.put_object(**bucket.object(key), Body=body)  # as someone with another tool
    assert len(registry.repair("reviews", []).left) == 2
    assert len(registry.repair("reviews", [policy]).mended) == 2
    registry.verify("reviews")
