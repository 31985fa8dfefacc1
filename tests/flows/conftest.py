from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flows

MakeProject = Callable[[str], Path]
DVC = (sys.executable, "-m", "dvc")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One real Prefect server, with a database of its own, for all tests of flows."""
    assert flows.QUIET  # imported first: prefect reads its settings once
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def make_project(tmp_path: Path) -> MakeProject:
    """Lays out a real project of git and DVC with the given stages."""

    def make(stages: str) -> Path:
        root = tmp_path / "project"
        root.mkdir()
        subprocess.run(("git", "init", "--quiet"), cwd=root, check=True)
        subprocess.run((*DVC, "init", "--quiet"), cwd=root, check=True)
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
