from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
