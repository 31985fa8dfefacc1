from __future__ import annotations

import logging
import os
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[2]
MakeProject = Callable[[str], Path]


@pytest.fixture
def make_project(new_repository: Callable[[], Path]) -> MakeProject:
    """Lays out a real project of git and DVC with the given stages."""

    def make(stages: str) -> Path:
        root = new_repository()
        (root / "dvc.yaml").write_text("stages:\n" + textwrap.indent(textwrap.dedent(stages).strip(), "  "))
        return root

    return make


@pytest.fixture
def task_log() -> Iterator[list[tuple[float, str]]]:
    """(seconds, message) of everything that tasks log during the test."""
    records: list[tuple[float, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append((record.created, record.getMessage()))

    handler = Keep()
    logger = logging.getLogger("prefect.task_runs")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def new_prefect_home(prefect_server: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a home whose database is migrated already: a copy of that of the server for all tests."""

    def make() -> Path:
        home, name = tmp_path_factory.mktemp("home"), "prefect.db"
        with closing(sqlite3.connect(prefect_server / name)) as old, closing(sqlite3.connect(home / name)) as new:
            old.backup(new)
        return home

    return make


@contextmanager
def serving(home: Path, **variables: str) -> Iterator[str]:
    """A server as a team runs it, with schedules and automations; yields its address."""
    from flows.process import start_guarded

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    variables |= {"PREFECT_HOME": str(home), "PREFECT_API_URL": "", "PREFECT_UI_ENABLED": "0"}
    guard = start_guarded(command, home, subprocess.DEVNULL, variables)
    assert guard.stdin is not None
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/api/health").close()
                break
            except OSError:
                assert time.monotonic() < deadline
                assert guard.poll() is None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        guard.stdin.close()
        guard.wait()


@pytest.fixture(scope="session")
def _team_server(new_prefect_home: Callable[[], Path]) -> Iterator[str]:
    with serving(new_prefect_home()) as url:
        yield url


@pytest.fixture
def team_server(_team_server: str) -> Iterator[str]:
    """The address of such a server; one for all tests that ask for it."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: _team_server}):
        yield _team_server


@pytest.fixture
def worker(team_server: str, tmp_path: Path) -> Iterator[Path]:
    """A worker of the pool that flows.deploy makes there, as a service of the system would start it; yields its log."""
    command = (sys.executable, "-m", "prefect", "worker", "start", "--pool", "mixdpo", "--type", "process")
    environment = {
        **os.environ,
        "PREFECT_API_URL": team_server,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    yield tmp_path / "worker.log"
    process.terminate()
    process.wait(60)
