"""What the tests of flows and the end-to-end test share: one Prefect server, and projects of git and DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# before torch is imported: the models are small, and two processes of tests share the processors
os.environ.setdefault("OMP_NUM_THREADS", "1")


FLOWS = "tests/flows/"  # they share a Prefect server
LONGEST = (FLOWS, "tests/test_end_to_end.py")  # first, so that no process is left with them at the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side (`pytest -n 3`), each process gets whole files, so that what a file shares is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return FLOWS if nodeid.startswith(FLOWS) else nodeid.split("::")[0]

    return ByFile(config, log)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One real Prefect server for all tests, as flows start it; yields its home, which has a database of its own."""
    from flows.server import server

    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        with server():
            yield home


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
