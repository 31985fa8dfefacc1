"""A server on PostgreSQL is set up and runs flows like one on SQLite."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deploy import deploy

from .conftest import serving

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def binaries() -> Path | None:
    """Where PostgreSQL's commands are: on the path, or where Debian has them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty database, by a server of its own."""
    commands = binaries()
    if commands is None:
        pytest.skip("PostgreSQL's initdb and postgres are not installed")
    # below /tmp itself: whoever it runs as must be able to get there, and the path of a socket is short
    place = Path(subprocess.check_output(("mktemp", "--directory"), text=True).strip())
    user = None
    if os.geteuid() == 0:  # which it refuses to run as
        user = "nobody"
        shutil.chown(place, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    make = (commands / "initdb", "--pgdata", place / "data", "--username", "prefect", "--auth", "trust", "--no-sync")
    subprocess.run(make, user=user, cwd=place, check=True, capture_output=True)
    settings = ("-c", "fsync=off", "-c", f"unix_socket_directories={place}", "-c", "listen_addresses=127.0.0.1")
    command = (commands / "postgres", "-D", place / "data", "-p", str(port), *settings)
    process = subprocess.Popen(command, user=user, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ask = (commands / "pg_isready", "--host", "127.0.0.1", "--port", str(port))
        deadline = time.monotonic() + 60
        while subprocess.run(ask, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(place)


@flow(name="small")
def small() -> int:
    return 1


def test_a_server_on_postgresql(database: str, tmp_path: Path) -> None:
    with (
        serving(tmp_path, PREFECT_SERVER_DATABASE_CONNECTION_URL=database) as url,
        temporary_settings({PREFECT_API_URL: url}),
    ):
        placed = list(deploy(ROOT, "process", trainings=1, notify=(), silence=timedelta(seconds=90)))
        assert {each.state for each in placed} == {"created"}
        assert small() == 1
        with get_client(sync_client=True) as client:
            assert [run.state_name for run in client.read_flow_runs()] == ["Completed"]
            assert client.read_deployment_by_name("retrain/weekly").work_pool_name == "mixdpo"
