"""A run that was stopped goes on: bit for bit on the same ranks, to rounding on any others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def found(on_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    directory: Path = tmp_path_factory.mktemp("checkpoints")
    differences: dict[str, dict[str, float]] = on_ranks("resumption", str(directory), ranks=2)[0]
    return differences


@pytest.mark.parametrize("kind", ["shared", "whole"])
def test_the_same_ranks_go_on_bit_for_bit(found: dict[str, dict[str, float]], kind: str) -> None:
    assert found[f"{kind}, same ranks"] == {"steps": 3, "figures": 0.0, "tensors": 0.0}


@pytest.mark.parametrize("way", ["shared, other ranks", "whole, one process"])
def test_other_ranks_go_on_to_the_same_numbers(found: dict[str, dict[str, float]], way: str) -> None:
    assert found[way]["steps"] == 3
    assert found[way]["figures"] < 1e-5
    assert found[way]["tensors"] < 1e-4
