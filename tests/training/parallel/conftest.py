"""Starts ranks: one warm process for all tests, which forks them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixdpo.training.parallel.launch import launch

# the tests here and the ranks they start import `at_work` by name
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def on_ranks() -> Callable[..., list[Any]]:
    """Run a function of `at_work.py` on some ranks; what each returned."""

    def run(name: str, *arguments: Any, ranks: int, **others: Any) -> list[Any]:
        import at_work

        return launch(getattr(at_work, name), arguments, ranks, preload="mixdpo.stages.train", **others)

    return run
