"""What the tests of flows and the end-to-end test share: one Prefect server, and projects of git and DVC."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One real Prefect server, with a database of its own, for all tests."""
    import flows

    assert flows.QUIET  # imported first: prefect reads its settings once
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def empty_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by git and DVC once; tests take copies."""
    root = tmp_path_factory.mktemp("repository") / "empty"
    root.mkdir()
    subprocess.run(("git", "init", "--quiet"), cwd=root, check=True)
    subprocess.run((sys.executable, "-m", "dvc", "init", "--quiet"), cwd=root, check=True)
    return root


@pytest.fixture
def new_repository(empty_repository: Path, tmp_path: Path) -> Callable[[], Path]:
    """Lays out a repository of git and DVC in which nothing is yet."""
    return lambda: Path(shutil.copytree(empty_repository, tmp_path / "project", symlinks=True))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """One temporary Ray cluster, as a stage would start it, for all tests; its address."""
    from mixdpo.config.engine import RayEngine
    from mixdpo.engine.cluster import connected, prepare_ray

    settings = RayEngine(kind="ray", cpus=1)
    prepare_ray(settings)
    import ray

    with connected(settings):
        yield ray.get_runtime_context().gcs_address
