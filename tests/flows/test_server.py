"""The server that a run brings along lives as long as the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from prefect.settings import PREFECT_API_URL

from flows.server import server

from .test_process import until


def listening(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname, address.port)) == 0


@pytest.fixture(scope="module")
def prefect_home(new_prefect_home: Callable[[], Path]) -> Path:
    return new_prefect_home()


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_is_named_is_used() -> None:
    with server() as url:
        assert url == str(PREFECT_API_URL.value())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_ends_its_server_and_not_before_itself(
    tmp_path: Path, prefect_home: Path, how: signal.Signals
) -> None:
    # on its way out it looks whether the server is still there to be told of the end
    code = """
import sys, time, flows
from urllib.request import urlopen
from flows.server import server
from prefect import flow, get_run_logger
@flow
def speak():
    get_run_logger().info("spoken")
try:
    with server() as url:
        speak()
        open(sys.argv[1], "w").write(url + "\\n")
        try:
            time.sleep(300)
        finally:
            open(sys.argv[1], "a").write(str(urlopen(url + "/health").status))
except KeyboardInterrupt:
    pass
"""
    note = tmp_path / "note"
    process = subprocess.Popen(
        (sys.executable, "-c", code, str(note)),
        env={**os.environ, "PREFECT_HOME": str(prefect_home), "PREFECT_API_URL": ""},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # where the tests run in the background, Ctrl-C is ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert until(lambda: note.is_file() and note.read_text().endswith("\n"), seconds=120)
    url = note.read_text().strip()
    with urlopen(f"{url}/health") as answer:
        assert answer.status == 200
    os.killpg(process.pid, how)  # as a terminal does, to all of the group
    # what were still queued for the server when it ends would be tried for a minute
    said = process.communicate(timeout=30)[1]
    assert until(lambda: not listening(url))
    assert note.read_text() == (f"{url}\n200" if how is signal.SIGINT else f"{url}\n")
    assert "spoken" in said
    assert "connection" not in said
    assert "View at" not in said
