"""Training over ranks is training by one process, whatever the grid, the architecture and the options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from at_work import CASES, RANKS

# a gradient of nearly 0 leaves Adam's first steps to rounding: a parameter may move by a few times its learning rate of
# 3e-3 with no effect on any figure
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def found(on_ranks: Callable[..., list[Any]]) -> dict[str, dict[str, float]]:
    differences: dict[str, dict[str, float]] = on_ranks("equality", list(CASES), ranks=RANKS)[0]
    return differences


@pytest.mark.parametrize("case", CASES)
def test_ranks_train_as_one_process_does(found: dict[str, dict[str, float]], case: str) -> None:
    assert found[case]["steps"] >= 3
    assert found[case]["figures"] < 1e-5
    assert found[case]["tensors"] < ROUNDING
