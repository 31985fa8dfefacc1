"""Files come side by side, from nearby where they are here already; an interrupted fetch goes on where it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from mixdpo.errors import RegistryError, TransientError
from mixdpo.registry import Registry, Version
from mixdpo.registry.cache import BlobCache
from mixdpo.registry.file_store import FileStore
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_store import S3Store
from mixdpo.registry.staging import staging

from .proxy import Proxy, corrupt, drop

Contents = Callable[[Path], dict[str, bytes]]


class Counting(FileStore):
    """Tells which keys were read, and does not answer for one of them."""

    def __init__(self, root: Path, silent: str = "") -> None:
        super().__init__(root)
        self.read_keys: list[str] = []
        self.silent = silent

    def open(self, key: str) -> BinaryIO:
        if key.startswith("blobs/"):
            if key.endswith(self.silent or "\0"):
                time.sleep(0.2)  # the others are through by then
                raise TransientError(f"cannot read {key}: as the test wants it")
            self.read_keys.append(key)
        return super().open(key)


@pytest.fixture
def version(publish: Callable[..., Version]) -> Version:
    return publish(1)


def parts(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(".part"))


@pytest.mark.parametrize("use", ["pull", "materialise"])
def test_a_fetch_whose_store_fell_silent_goes_on_with_what_is_missing(
    use: str, version: Version, location: Path, tmp_path: Path, contents_of: Contents
) -> None:
    def fetch(store: Counting) -> Path:
        registry = Registry(store)
        if use == "pull":
            return registry.pull("reviews@v1", tmp_path / "there" / "target")
        return registry.materialise("reviews@v1")

    lost = version.manifest.files["reference/model.safetensors"].sha256
    with pytest.raises(TransientError):
        fetch(Counting(location, silent=lost))
    again = Counting(location)
    target = fetch(again)
    assert again.read_keys == [f"blobs/sha256/{lost}"]
    assert contents_of(target) == contents_of(tmp_path / "policy-1")
    assert parts(target.parent) == []


def test_what_an_interrupted_fetch_left_is_compared_before_it_is_used(
    version: Version, registry: Registry, location: Path, tmp_path: Path, contents_of: Contents
) -> None:
    with pytest.raises(TransientError):
        Registry(Counting(location, silent=version.manifest.files["mixture.json"].sha256)).pull(
            "reviews", tmp_path / "target"
        )
    (left,) = parts(tmp_path)
    (tmp_path / left / "files" / "expert-0.safetensors").write_bytes(b"not what it was")
    assert contents_of(registry.pull("reviews", tmp_path / "target")) == contents_of(tmp_path / "policy-1")
    assert parts(tmp_path) == []


def test_after_damage_nothing_is_left(
    version: Version, registry: Registry, location: Path, tmp_path: Path, overwrite: Callable[[Path, bytes], None]
) -> None:
    overwrite(location / "blobs/sha256" / version.manifest.files["mixture.json"].sha256, b"{}")
    with pytest.raises(RegistryError, match=r"^mixture\.json was changed"):
        registry.pull("reviews", tmp_path / "target")
    assert parts(tmp_path) == []


def test_versions_in_the_cache_share_what_they_have_in_common(
    registry: Registry, location: Path, publish: Callable[..., Version], tmp_path: Path, contents_of: Contents
) -> None:
    publish(1), publish(2)
    first = registry.materialise("reviews@v1")
    store = Counting(location)
    second = Registry(store).materialise("reviews@v2")
    assert len(store.read_keys) == 1  # its experts', which are equal
    shared = "reference/model.safetensors"
    assert os.path.samefile(first / shared, second / shared)
    assert contents_of(second) == contents_of(tmp_path / "policy-2")
    store = Counting(location)
    pulled = Registry(store).pull("reviews@v2", tmp_path / "target")
    assert store.read_keys == []
    assert contents_of(pulled) == contents_of(second)
    assert all(path.stat().st_nlink == 1 and path.stat().st_mode & 0o200 for path in pulled.rglob("*.*"))


def test_a_damaged_blob_of_the_cache_is_fetched_anew(
    registry: Registry, publish: Callable[..., Version], tmp_path: Path, contents_of: Contents
) -> None:
    publish(1), publish(2)
    cached = registry.materialise("reviews@v1") / "reference/model.safetensors"
    cached.chmod(0o644)
    cached.write_bytes(bytes(cached.stat().st_size))
    assert contents_of(registry.pull("reviews@v2", tmp_path / "target")) == contents_of(tmp_path / "policy-2")
    assert contents_of(registry.materialise("reviews@v2")) == contents_of(tmp_path / "policy-2")


def test_a_blob_is_kept_and_given_out_as_it_is(tmp_path: Path) -> None:
    cache, digest = BlobCache(tmp_path / "blobs"), "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    told: list[int] = []
    assert not cache.link(digest, tmp_path / "a")
    assert not cache.copy(digest, tmp_path / "a", told.append)
    (tmp_path / "foo").write_bytes(b"foo")
    cache.keep(digest, tmp_path / "foo")
    cache.keep(digest, tmp_path / "foo")
    assert cache.link(digest, tmp_path / "a")
    assert cache.copy(digest, tmp_path / "b", told.append)
    assert (os.path.samefile(tmp_path / "a", tmp_path / "foo"), (tmp_path / "b").read_bytes(), told) == (
        True,
        b"foo",
        [3],
    )
    (tmp_path / "foo").write_bytes(b"bar")
    assert not cache.copy(digest, tmp_path / "c", told.append)
    assert not (tmp_path / "c").exists()
    cache.keep(digest, tmp_path / "foo")
    assert not cache.link(digest, tmp_path / "d")
    assert os.listdir(tmp_path / "blobs") == []


def test_what_is_damaged_on_its_way_is_fetched_again(
    bucket: S3Location, proxy: Proxy, policy: Path, tmp_path: Path, contents_of: Contents
) -> None:
    registry = Registry(S3Store(S3Location(bucket.bucket, bucket.prefix, proxy.url)))
    version = registry.register("reviews", policy, {}, "staging", "first")
    key = version.manifest.files["reference/model.safetensors"].sha256
    proxy.inject(corrupt, "GET", key)
    assert contents_of(registry.pull("reviews", tmp_path / "one")) == contents_of(policy)
    proxy.inject(corrupt, "GET", key, times=2)
    with pytest.raises(RegistryError, match=r"^reference/model\.safetensors was changed: expected sha256"):
        registry.pull("reviews", tmp_path / "two")


def test_an_interrupted_pull_from_a_bucket_goes_on_with_what_is_missing(
    bucket: S3Location,
    proxy: Proxy,
    policy: Path,
    tmp_path: Path,
    contents_of: Contents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    registry = Registry(S3Store(S3Location(bucket.bucket, bucket.prefix, proxy.url)))
    version = registry.register("reviews", policy, {}, "staging", "first")
    smallest = min(version.manifest.files.values(), key=lambda content: content.size).sha256  # it comes last
    proxy.inject(drop, "GET", smallest)
    with pytest.raises(TransientError):
        registry.pull("reviews", tmp_path / "target")
    proxy.heal()
    assert contents_of(registry.pull("reviews", tmp_path / "target")) == contents_of(policy)
    assert proxy.count("GET", "blobs/") < len({content.sha256 for content in version.manifest.files.values()})


def test_two_processes_that_fetch_to_one_place_take_turns(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from mixdpo.registry.staging import staging
with staging(Path(sys.argv[1]), "d" * 64) as files:
    assert not list(files.iterdir())
    print("in", flush=True)
"""
    target = tmp_path / "target"
    with staging(target, "d" * 64) as files:
        (files / "half").write_text("")
        other = subprocess.Popen(
            [sys.executable, "-c", script, str(target)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert other.stderr is not None
        assert other.stderr.readline() == f"waiting for another process that fetches {target}\n"
        assert other.poll() is None
    assert other.communicate(timeout=30) == ("in\n", "")
    assert (other.returncode, os.listdir(tmp_path)) == (0, [])
