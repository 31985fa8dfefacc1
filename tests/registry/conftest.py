"""A policy's files as small as they can be, and what a test does to a registry as root or not."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from mixdpo.registry import Registry, Version
from mixdpo.registry.s3_location import S3Location

from .proxy import Proxy, proxying
from .servers import BUCKET, CLIENT, rclone, seaweed

LINEAGE = {"schema": 1, "git": {"commit": "0" * 40, "dirty": False}, "metrics": {"reward": 0.5}}


def safetensors(payload: bytes) -> bytes:
    header = json.dumps({"head": {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}}).encode()
    return len(header).to_bytes(8, "little") + header + payload


def write_policy(directory: Path, seed: int = 0, size: int = 5000) -> Path:
    """A directory like a policy's: nested, with two equal files, and other weights for another seed."""
    (directory / "reference").mkdir(parents=True)
    (directory / "mixture.json").write_text('{"schema": 1, "experts": 2}\n', encoding="utf-8")
    (directory / "reference" / "tokenizer.json").write_text('{"model": "Größe"}\n', encoding="utf-8")
    (directory / "reference" / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    (directory / "reference" / "model.safetensors").write_bytes(safetensors(b"\xff" * size))
    for expert in (0, 1):
        (directory / f"expert-{expert}.safetensors").write_bytes(safetensors(bytes([seed % 251]) * size))
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policy")


@pytest.fixture
def new_policy() -> Callable[..., Path]:
    return write_policy


@pytest.fixture
def contents_of() -> Callable[[Path], dict[str, bytes]]:
    return contents


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(location: Path) -> Registry:
    return Registry(location)


@pytest.fixture
def publish(registry: Registry, tmp_path: Path) -> Callable[..., Version]:
    """publish(seed, alias): register a policy that differs by its seed."""

    def publish(seed: int, alias: str | None = "staging", name: str = "reviews") -> Version:
        directory = tmp_path / f"policy-{seed}"
        if not directory.exists():
            write_policy(directory, seed)
        return registry.register(name, directory, LINEAGE, alias, f"seed {seed}")

    return publish


@pytest.fixture
def overwrite() -> Callable[[Path, bytes], None]:
    """Put other bytes into a file of the registry, which are read-only."""

    def overwrite(path: Path, body: bytes) -> None:
        path.chmod(0o644)
        path.write_bytes(body)

    return overwrite


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """Run a block as a user whom permissions bind: root's are set aside for it."""

    @contextmanager
    def unprivileged() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return unprivileged


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's registry nor their cache is touched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.delenv("MIXDPO_REGISTRY", raising=False)


@pytest.fixture(scope="session")
def seaweed_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with seaweed(tmp_path_factory.mktemp("servers") / "seaweed") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rclone(tmp_path_factory.mktemp("servers") / "rclone") as endpoint:
        yield endpoint


@pytest.fixture
def s3_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a client of the servers and of nothing else."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for variable, value in CLIENT.items():
        monkeypatch.setenv(variable, value)


@pytest.fixture
def bucket(seaweed_endpoint: str, s3_client: None) -> S3Location:  # noqa: ARG001 (sets the environment)
    """A place of this test's own in a bucket of SeaweedFS."""
    return S3Location(BUCKET, f"test-{uuid.uuid4().hex[:12]}", seaweed_endpoint)


@pytest.fixture
def proxy(seaweed_endpoint: str) -> Iterator[Proxy]:
    with proxying(seaweed_endpoint) as proxy:
        yield proxy
