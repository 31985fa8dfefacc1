from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import RegistryError
from mixdpo.registry import Registry
from mixdpo.registry.safety import check_content, check_path, check_paths, plain_files

UNSAFE = [
    *("../a.json", "a/../../b.json", "/etc/a.json", "./a.json", "a//b.json", "a/", ".json", ".git/a.json"),
    *(
        "a\\b.json",
        "C:/a.json",
        "a\0.json",
        "a\n.json",
        "a b.json",
        "é.json",
        "a/.b.0.part/c.json",
        "a" * 600 + ".json",
    ),
]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_path_that_leaves_its_directory_or_is_odd_is_refused(path: str) -> None:
    with pytest.raises(RegistryError, match=f"^unsafe path {re.escape(repr(path))} in a version: expected a relative"):
        check_path(path)


@given(st.text(max_size=30))
def test_a_path_that_passes_stays_below_its_directory(path: str) -> None:
    try:
        check_path(path + ".json")
    except RegistryError:
        return
    assert os.path.normpath(f"/root/{path}.json") == f"/root/{path}.json"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "state.pkl", "x.PT", "a/b.ckpt", "x.npy"])
def test_files_that_may_hold_pickles_are_refused(name: str) -> None:
    suffix = name[name.index(".") :].lower()
    with pytest.raises(RegistryError, match=rf"^{name}: {suffix} files may hold pickles, which run code when"):
        check_path(name)


@pytest.mark.parametrize("name", ["run.sh", "model", "code.py", "lib.so"])
def test_types_outside_the_list_are_refused(name: str) -> None:
    with pytest.raises(RegistryError, match=rf"^{name}: files of type .* are not published; allowed are \.csv, "):
        check_path(name)


def test_paths_that_would_take_each_others_place_are_refused() -> None:
    with pytest.raises(RegistryError, match=r"^A\.json and a\.json differ in case only"):
        check_paths(["a.json", "A.json"])
    with pytest.raises(RegistryError, match=r"^a\.json is a file and also the directory of A\.json/b\.json"):
        check_paths(["a.json", "A.json/b.json"])
    check_paths(["a.json", "b/a.json"])


def zipped() -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({}))
    return body.getvalue()


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a.safetensors", "a.parquet", "a.png", "a.csv"])
@pytest.mark.parametrize("body", [pickle.dumps({"a": 1}, protocol) for protocol in (2, 3, 4, 5)] + [zipped()])
def test_a_renamed_pickle_is_refused(tmp_path: Path, name: str, body: bytes) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(RegistryError, match=rf"^{name}: expected .*, got a pickle; remove the file or write it again$"):
        check_content(name, tmp_path / name)


def test_a_safetensors_file_has_its_header(tmp_path: Path) -> None:
    for body in (b"", b"\x10", (99).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"):
        (tmp_path / "a.safetensors").write_bytes(body)
        with pytest.raises(RegistryError, match=r"^a\.safetensors: expected a safetensors header, got the first bytes"):
            check_content("a.safetensors", tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    check_content("a.safetensors", tmp_path / "a.safetensors")


def test_links_and_devices_are_refused(policy: Path, tmp_path: Path) -> None:
    for link, to in (("link.json", policy / "mixture.json"), ("linked", policy / "reference"), ("dead.json", "absent")):
        (policy / link).symlink_to(to)
        with pytest.raises(RegistryError, match=f"^{policy / link} is a symbolic link, which is not published; put"):
            plain_files(policy)
        (policy / link).unlink()
    os.mkfifo(policy / "pipe.json")
    with pytest.raises(RegistryError, match=r"pipe\.json is neither a file nor a directory; remove it$"):
        plain_files(policy)
    with pytest.raises(RegistryError, match="is not a directory, so there is nothing to register"):
        plain_files(tmp_path / "absent")


def test_what_is_unsafe_leaves_no_trace_in_the_registry(
    registry: Registry, location: Path, policy: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.json").symlink_to(policy / "mixture.json")
    for extra in ({"../a.json": policy / "mixture.json"}, {"run/link.json": tmp_path / "link.json"}):
        with pytest.raises(RegistryError):
            registry.register("reviews", policy, {}, None, "try", extra)
    (policy / "optimizer.json").write_bytes(pickle.dumps({}))
    with pytest.raises(RegistryError, match="got a pickle"):
        registry.register("reviews", policy, {}, None, "try")
    assert not location.exists()


def test_a_manifest_made_by_another_cannot_leave_the_target(
    registry: Registry, location: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher without our checks: the registry then holds the path, and whoever fetches refuses it."""
    with monkeypatch.context() as careless:
        careless.setattr("mixdpo.registry.manifest.check_paths", lambda _: None)
        careless.setattr("mixdpo.registry.manifest.check_content", lambda *_: None)
        careless.setattr("mixdpo.registry.safety.check_path", lambda _: None)
        registry.register("reviews", policy, {}, None, "evil", {"../../escaped.json": policy / "mixture.json"})
    for use in (lambda: Registry(location).pull("reviews", tmp_path / "a" / "b"), lambda: registry.verify("reviews")):
        with pytest.raises(RegistryError, match=r"unsafe path '\.\./\.\./escaped\.json' in a version"):
            use()
    assert not list(tmp_path.rglob("escaped.json"))


def test_a_pickle_published_by_another_is_not_fetched(
    registry: Registry, location: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (policy / "head.safetensors").write_bytes(pickle.dumps({}))
    with monkeypatch.context() as careless:
        careless.setattr("mixdpo.registry.manifest.check_content", lambda *_: None)
        registry.register("reviews", policy, {}, None, "evil")
    with pytest.raises(RegistryError, match=r"^head\.safetensors: expected a safetensors header, got a pickle"):
        Registry(location).pull("reviews", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_link_in_the_registry_does_not_lead_out_of_it(
    registry: Registry, location: Path, tmp_path: Path, publish: Callable[..., object]
) -> None:
    publish(1)
    secret = tmp_path / "secret"
    blob = next(path for path in (location / "blobs" / "sha256").iterdir() if path.stat().st_size > 5000)
    secret.write_bytes(b"s" * blob.stat().st_size)
    blob.unlink()
    blob.symlink_to(secret)
    with pytest.raises(RegistryError, match="was changed: expected sha256"):
        registry.pull("reviews", tmp_path / "target")
    assert not (tmp_path / "target").exists()
