from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError, StorageError
from mixdpo.files import file_digest
from mixdpo.registry import Registry, Version

Publish = Callable[..., Version]
Contents = Callable[[Path], dict[str, bytes]]


def blobs(location: Path) -> list[Path]:
    return sorted((location / "blobs" / "sha256").iterdir())


def test_publish_then_pull_returns_the_same_bytes(
    registry: Registry, policy: Path, tmp_path: Path, contents_of: Contents
) -> None:
    extra = {"run/params.yaml": tmp_path / "params.yaml"}
    extra["run/params.yaml"].write_text("schema: 1\n", encoding="utf-8")
    version = registry.register("reviews", policy, {"profile": "demo"}, "staging", "first", extra)
    assert (version.number, version.aliases, version.created) == (1, ("staging",), True)
    target = registry.pull("reviews@staging", tmp_path / "there" / "copy")
    assert contents_of(target) == {**contents_of(policy), "run/params.yaml": b"schema: 1\n"}
    assert os.listdir(tmp_path / "there") == ["copy"]
    assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in target.rglob("*.json"))


def test_blobs_are_named_by_what_they_hold_and_equal_ones_stored_once(
    registry: Registry, location: Path, policy: Path, contents_of: Contents
) -> None:
    registry.register("reviews", policy, {}, None, "first")
    assert all(path.name == file_digest(path) for path in blobs(location))
    assert len(blobs(location)) == len(set(contents_of(policy).values())) == len(contents_of(policy)) - 1
    registry.register("others", policy, {"profile": "other"}, None, "the same bytes under another name")
    assert len(blobs(location)) == len(contents_of(policy)) - 1


def test_the_same_again_is_no_new_version_though_the_alias_moves(
    registry: Registry, location: Path, publish: Publish
) -> None:
    first, second = publish(1), publish(2)
    before = sorted(location.rglob("*"))
    again = Registry(location).register("reviews", *_registration(location, 2))
    assert (again, again.written, again.created) == (second, None, False)
    assert sorted(location.rglob("*")) == before
    back = publish(1)
    assert (back.number, back.digest, back.aliases, back.created) == (1, first.digest, ("staging",), False)
    assert back.written is not None
    assert (back.written.op, back.written.seq) == ("alias", 3)
    assert [version.number for version in registry.list("reviews")] == [1, 2]


def _registration(location: Path, seed: int) -> tuple[Path, dict[str, object], str, str]:
    manifest = Registry(location).resolve("reviews@v2").manifest
    return location.parent / f"policy-{seed}", manifest.lineage, "staging", "the same again"


def test_references_find_versions_and_errors_list_what_there_is(registry: Registry, publish: Publish) -> None:
    with pytest.raises(RegistryError, match=r"^nothing is registered as reviews in .*, which has no versions at all; "):
        registry.resolve("reviews")
    first, second = publish(1), publish(2, alias=None)
    for reference, number in (("reviews", 2), ("reviews@staging", 1), ("reviews@v2", 2), ("reviews@1", 1)):
        assert registry.resolve(reference).number == number
    assert registry.resolve(f"reviews@sha256:{first.digest}").number == 1
    assert registry.resolve(f"reviews@sha256:{second.digest[:12]}").number == 2
    with pytest.raises(RegistryError, match=r"^reviews@production does not exist: .* v1 to v2 and the aliases staging"):
        registry.resolve("reviews@production")
    with pytest.raises(RegistryError, match=r"^nothing is registered as movies in .*, which has reviews; register it"):
        registry.resolve("movies")


def test_rollback_goes_back_step_by_step_by_new_entries(registry: Registry, publish: Publish) -> None:
    for seed in (1, 2, 3):
        publish(seed)
    numbers = [registry.rollback("reviews", "staging", f"worse {i}").number for i in (1, 2)]
    assert numbers == [2, 1]
    with pytest.raises(RegistryError) as error:
        registry.rollback("reviews", "staging", "more")
    assert str(error.value) == (
        "reviews@staging has nothing to go back to: before v1 it pointed nowhere; promote another version instead"
    )
    with pytest.raises(RegistryError, match=r"^reviews@production does not exist: "):
        registry.rollback("reviews", "production", "never was")
    entries = registry.history("reviews").entries
    assert [(entry.op, entry.reason) for entry in entries[3:]] == [("rollback", "worse 1"), ("rollback", "worse 2")]
    assert registry.resolve("reviews").number == 3


def test_an_alias_moves_at_once_and_only_where_it_must(registry: Registry, publish: Publish) -> None:
    publish(1)
    publish(2)
    assert registry.set_alias("reviews", "production", "v1", "good").aliases == ("production",)
    assert registry.set_alias("reviews", "production", "reviews@staging", "better").number == 2
    same = registry.set_alias("reviews", "production", "2", "again")
    assert (same.number, same.written) == (2, None)
    assert len(registry.history("reviews").entries) == 4
    with pytest.raises(RegistryError, match=r"^reviews@v9 does not exist: "):
        registry.set_alias("reviews", "production", "v9", "x")
    with pytest.raises(RegistryError, match=r"^'reviews@others@v1' is not a reference"):
        registry.set_alias("reviews", "production", "others@v1", "x")
    with pytest.raises(RegistryError, match="alias: Value error, 'v1' is no alias; expected small letters"):
        registry.set_alias("reviews", "v1", "v2", "x")


def test_a_bad_alias_or_reason_publishes_nothing(registry: Registry, location: Path, policy: Path) -> None:
    for alias, reason in (("v3", "because"), ("staging", "")):
        with pytest.raises(RegistryError, match=r"^the registry cannot note this: "):
            registry.register("reviews", policy, {}, alias, reason)
    assert not location.exists()


def test_pulling_over_something_else_is_refused_and_over_the_same_is_done(
    registry: Registry, publish: Publish, tmp_path: Path, contents_of: Contents
) -> None:
    publish(1)
    target = tmp_path / "target"
    target.mkdir()
    assert registry.pull("reviews", target) == target  # it was empty
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    registry.pull("reviews", target)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    (target / "mine.txt").write_text("precious", encoding="utf-8")
    held = contents_of(target)
    with pytest.raises(RegistryError) as error:
        registry.pull("reviews", target)
    assert str(error.value) == (
        f"{target} exists and is not reviews@v1; choose a directory that does not exist, or remove this one"
    )
    assert contents_of(target) == held
    (target / "mine.txt").unlink()
    publish(2)
    with pytest.raises(RegistryError, match=r"target exists and is not reviews@v2; choose"):
        registry.pull("reviews", target)
    with pytest.raises(RegistryError, match=r"mixture\.json exists and is not reviews@v2; choose"):
        registry.pull("reviews", target / "mixture.json")


def _tampered(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_tampered, r"expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"),
        (lambda body: body[:-1], r"expected \d+ bytes, got \d+"),
        (lambda body: body + b"more", r"expected \d+ bytes, got \d+"),
        (lambda _: b"", r"expected \d+ bytes, got 0"),
    ],
)
def test_a_damaged_blob_is_never_delivered_and_can_be_put_back(
    registry: Registry,
    location: Path,
    publish: Publish,
    tmp_path: Path,
    overwrite: Callable[[Path, bytes], None],
    damage: Callable[[bytes], bytes],
    fault: str,
) -> None:
    version = publish(1)
    path = "expert-0.safetensors"
    blob = location / "blobs" / "sha256" / version.manifest.files[path].sha256
    overwrite(blob, damage(blob.read_bytes()))
    message = (
        rf"^{path} was changed: {fault} in blobs/sha256/{blob.name} of {re.escape(str(location))}; `mixdpo repair NAME "
        "--from DIRECTORY` puts it back from a copy, such as the directory that was registered$"
    )
    for fetch in (lambda: registry.pull("reviews", tmp_path / "target"), lambda: registry.materialise("reviews")):
        with pytest.raises(RegistryError, match=message):
            fetch()
    assert not (tmp_path / "target").exists()
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    with pytest.raises(RegistryError, match=rf"^reviews in .* is damaged:\n  v1: {path} was changed: {fault}"):
        registry.verify("reviews")
    with pytest.raises(RegistryError, match=f"{path} was changed: {fault}"):
        publish(1)
    blob.unlink()
    with pytest.raises(RegistryError, match=rf"^{path} is lost: .* has no blobs/sha256/{blob.name}; `mixdpo repair"):
        registry.pull("reviews", tmp_path / "target")
    assert not publish(1).created
    registry.pull("reviews", tmp_path / "target")
    registry.verify("reviews")


def test_no_new_version_is_made_of_a_blob_that_was_damaged(
    registry: Registry, location: Path, publish: Publish, overwrite: Callable[[Path, bytes], None]
) -> None:
    version = publish(1)
    shared = location / "blobs" / "sha256" / version.manifest.files["reference/model.safetensors"].sha256
    overwrite(shared, _tampered(shared.read_bytes()))
    with pytest.raises(RegistryError, match=r"^reference/model\.safetensors was changed"):
        publish(2)
    assert len(registry.list("reviews")) == 1


def test_a_changed_or_lost_manifest_is_refused(
    registry: Registry, location: Path, publish: Publish, overwrite: Callable[[Path, bytes], None]
) -> None:
    version = publish(1)
    manifest = location / "manifests" / "sha256" / f"{version.digest}.json"
    body = manifest.read_bytes()
    overwrite(manifest, body.replace(b'"reward":0.5', b'"reward":0.9'))
    with pytest.raises(RegistryError, match=rf"^manifests/sha256/{version.digest}\.json of .* was changed: expected"):
        registry.resolve("reviews")
    overwrite(manifest, body)
    registry.resolve("reviews")
    manifest.unlink()
    with pytest.raises(RegistryError, match=rf"^manifests/sha256/{version.digest}\.json of .* is lost; `mixdpo repair"):
        registry.resolve("reviews")
    publish(1)
    registry.resolve("reviews")


def test_the_log_of_one_name_is_not_taken_for_another(registry: Registry, location: Path, publish: Publish) -> None:
    publish(1)
    shutil.copytree(location / "log" / "reviews", location / "log" / "others")
    with pytest.raises(RegistryError, match="is of reviews, expected of others; restore log/others/"):
        registry.resolve("others")


def test_verify_reads_each_thing_once_and_names_all_damage(
    registry: Registry, location: Path, publish: Publish, overwrite: Callable[[Path, bytes], None]
) -> None:
    first, second = publish(1), publish(2)
    whole = registry.verify("reviews")
    assert (whole.entries, whole.versions, whole.blobs) == (2, 2, len(blobs(location)))
    assert whole.size == sum(path.stat().st_size for path in blobs(location))
    for version in (first, second):
        overwrite(location / "blobs" / "sha256" / version.manifest.files["expert-1.safetensors"].sha256, b"gone")
    with pytest.raises(RegistryError) as error:
        registry.verify("reviews")
    lines = str(error.value).splitlines()
    assert lines[0] == f"reviews in {location} is damaged:"
    assert [line.split(" was changed")[0] for line in lines[1:]] == [
        "  v1: expert-0.safetensors",
        "  v2: expert-0.safetensors",
    ]


def test_a_version_is_fetched_to_the_cache_once(
    registry: Registry, location: Path, publish: Publish, tmp_path: Path, contents_of: Contents
) -> None:
    publish(1)
    first = registry.materialise("reviews@staging")
    assert first.is_relative_to(tmp_path / "cache" / "mixdpo")
    assert contents_of(first) == contents_of(tmp_path / "policy-1")
    assert all(path.stat().st_mode & 0o222 == 0 for path in first.rglob("*") if path.is_file())
    shutil.rmtree(location / "blobs")
    assert Registry(location).materialise("reviews@v1") == first


def test_a_cached_version_that_lost_something_is_fetched_again(
    registry: Registry, publish: Publish, tmp_path: Path, contents_of: Contents
) -> None:
    publish(1)
    cached = registry.materialise("reviews")
    (cached / "mixture.json").unlink()
    registry.materialise("reviews")
    (cached / "expert-0.safetensors").unlink()
    (cached / "expert-0.safetensors").write_bytes(b"cut")
    assert contents_of(registry.materialise("reviews")) == contents_of(tmp_path / "policy-1")


def test_a_registry_that_cannot_be_written_can_be_read(
    new_policy: Callable[..., Path], unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    with tempfile.TemporaryDirectory() as shared:  # pytest's own directories are closed to other users
        os.chmod(shared, 0o755)
        location, open_to_all = Path(shared, "registry"), Path(shared, "open")
        one, two = new_policy(Path(shared, "1"), 1), new_policy(Path(shared, "2"), 2)
        Registry(location).register("reviews", one, {}, "staging", "first")
        for path in (location, *location.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
        open_to_all.mkdir()
        open_to_all.chmod(0o777)
        with unprivileged():
            registry = Registry(location)
            registry.pull("reviews@staging", open_to_all / "target")
            with pytest.raises(StorageError, match=r"^cannot write .*: Permission denied; make the directory writable"):
                registry.register("reviews", two, {}, "staging", "second")
            with pytest.raises(StorageError, match=r"^cannot write .*/log/reviews/0000000002\.json: Permission denied"):
                registry.set_alias("reviews", "production", "v1", "first")
            with pytest.raises(StorageError, match=r"^cannot write .*/here: Permission denied"):
                registry.pull("reviews", Path(shared, "here"))
        assert len(Registry(location).history("reviews").entries) == 1
        for path in (location, *location.rglob("*")):
            path.chmod(0o755)
