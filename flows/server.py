"""A Prefect server for the time of one run, where PREFECT_API_URL names none.

Prefect can start one itself, but as an unprotected child: Ctrl-C ends it together with the flow, which then waits
minutes for a server to tell of its end, and a killed flow leaves it running. This one ends with the flow, not before.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.process import start_guarded
from mixdpo.errors import StorageError

START_SECONDS = 120  # the first start on a machine migrates a database
APPLICATION = ("-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--log-level", "error")

EPHEMERAL = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}  # neither pages nor schedules


@contextmanager
def server() -> Iterator[str]:
    """Yield the address of a server's API; flows started inside use it.

    Raises:
        StorageError: the server did not start.
    """
    named = PREFECT_API_URL.value()
    if named:
        yield str(named)
        return
    # it shows no pages, so the flow's "View at" would lead nowhere
    logging.getLogger("prefect.flow_runs").addFilter(lambda record: not record.getMessage().startswith("View at "))
    port = _free_port()
    command = (sys.executable, *APPLICATION, "--host", "127.0.0.1", "--port", str(port))
    guard = start_guarded(command, Path.cwd(), subprocess.DEVNULL, EPHEMERAL)
    assert guard.stdin is not None
    try:
        url = f"http://127.0.0.1:{port}/api"
        _wait(guard, url)
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield url
            finally:
                # what is still queued is for this server: sent later, it would be tried for a minute after its end
                APILogHandler().flush()
                EventsWorker.drain_all(timeout=5)
    finally:
        guard.stdin.close()
        guard.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(guard: subprocess.Popen[str], url: str) -> None:
    direct = build_opener(ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and guard.poll() is None:
        try:
            with direct.open(f"{url}/health", timeout=START_SECONDS):
                return
        except OSError:  # refused until it listens
            time.sleep(0.1)
    home = os.environ.get("PREFECT_HOME", "~/.prefect")
    raise StorageError(
        f"Prefect's server did not start in {START_SECONDS} s; see why with `prefect server start`. Its database is in "
        f"{home}, which must be writable; where a newer Prefect's lies there, set PREFECT_HOME to another directory"
    )
