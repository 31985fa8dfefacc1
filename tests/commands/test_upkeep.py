"""`mixdpo repair` and `mixdpo gc`."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.registry import Registry
from mixdpo.registry.store import blob_key

Cli = Callable[..., Result]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "mixture.json").write_text('{"seed": 1}', encoding="utf-8")
    return policy


@pytest.fixture
def registry(tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Registry(tmp_path / "shared")
    made.register("reviews", policy, {"schema": 1}, "staging", "first")
    return made


@pytest.fixture
def mixdpo(tmp_path: Path) -> Cli:
    place = ["--registry", str(tmp_path / "shared")]
    return lambda *arguments: CliRunner().invoke(main, ["--root", str(tmp_path), *arguments, *place])


def test_what_is_lost_is_put_back(mixdpo: Cli, registry: Registry, policy: Path, tmp_path: Path) -> None:
    key = blob_key(hashlib.sha256(b'{"seed": 1}').hexdigest())
    (tmp_path / "shared" / key).unlink()
    left = mixdpo("repair", "reviews")
    assert left.exit_code == 1
    assert "mixture.json is lost" in left.stderr
    assert "name more directories with --from" in left.stderr
    assert left.stdout == "reviews: 0 put back, 1 left\n"
    assert mixdpo("repair", "reviews", "--from", str(policy)).stdout == f"put back {key}\nreviews: 1 put back, 0 left\n"
    registry.verify("reviews")


def test_garbage_is_listed_first_and_removed_when_asked(mixdpo: Cli, registry: Registry, tmp_path: Path) -> None:
    for body, days in ((b"old", 8), (b"young", 1)):
        key = blob_key(hashlib.sha256(body).hexdigest())
        registry.store.put_once(key, body, hashlib.sha256(body).hexdigest())
        os.utime(tmp_path / "shared" / key, (0, time.time() - days * 86400))
    key = blob_key(hashlib.sha256(b"old").hexdigest())
    kept = "kept: 1 younger than 7 days, 0 that a running registration needs"
    listed = mixdpo("gc").stdout.splitlines()
    assert listed[1:] == ["garbage: 1 files, 0.0 MiB", kept, "nothing was removed; --delete does that"]
    assert listed[0].split() == ["3", key]
    assert registry.store.exists(key)
    assert mixdpo("gc", "--delete").stdout.splitlines()[1:] == ["removed 1 files, 0.0 MiB", kept]
    assert not registry.store.exists(key)
    assert mixdpo("gc", "--delete", "--grace-days", "0").stdout.splitlines()[-1] == "removed 1 files, 0.0 MiB"
    registry.verify("reviews")
