"""Whoever is lost, the error says which rank it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from mixdpo.errors import TrainingError
from mixdpo.training.parallel.roll import Roll, naming_who_left

WAIT = 0.5


def test_a_rank_that_is_killed_is_named_with_what_ended_it(on_ranks: Callable[..., Any]) -> None:
    expected = r"rank 1 of 2 \(process \d+\) was ended by SIGKILL; start it again: training goes on from its last"
    with pytest.raises(TrainingError, match=expected):
        on_ranks("losing", "dies", 600, ranks=2)


def test_a_rank_that_fails_is_named_with_its_error(on_ranks: Callable[..., Any]) -> None:
    expected = r"rank 1 of 2 \(process \d+\) failed with RuntimeError: too little memory\nTraceback(.|\n)*in fatal"
    with pytest.raises(TrainingError, match=expected):
        on_ranks("losing", "raises", 600, ranks=2)


def test_a_rank_that_hangs_is_named_by_who_waits_for_it(on_ranks: Callable[..., Any]) -> None:
    began = time.monotonic()
    expected = r"^rank 1 of 2 \(.*, process \d+\) is at step 2 while others wait at step 3; start it again"
    with pytest.raises(TrainingError, match=expected):
        on_ranks("losing", "hangs", 10, ranks=2)
    assert time.monotonic() - began < 120


@pytest.fixture
def store() -> dist.Store:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20))


def test_who_gives_no_sign_of_life_is_named(store: dist.Store) -> None:
    with Roll(store, 0, 2, WAIT) as mine:
        with Roll(store, 1, 2, WAIT):
            pass
        assert mine.missing().startswith("rank 1 of 2")


def test_a_connection_that_broke_is_nobodys_fault(store: dist.Store) -> None:
    with Roll(store, 0, 2, WAIT) as mine, Roll(store, 1, 2, WAIT):
        assert mine.missing().startswith("all ranks are alive and at the same step")


def test_the_first_who_looks_says_it_for_all(store: dist.Store) -> None:
    with Roll(store, 0, 3, WAIT) as first, Roll(store, 1, 3, WAIT) as second:
        Roll(store, 2, 3, WAIT)  # never begins
        verdict = first.missing()
        assert verdict.startswith("rank 2 of 3")
        assert "does not answer" in verdict
    # the first has gone meanwhile, but it is not what went wrong
    assert second.missing() == verdict


def test_a_rank_that_left_says_why(store: dist.Store) -> None:
    other = Roll(store, 1, 2, WAIT)
    with pytest.raises(TrainingError, match="the disk is full"), other, naming_who_left(other):
        raise TrainingError("the disk is full")
    with Roll(store, 0, 2, WAIT) as mine, pytest.raises(TrainingError) as error, naming_who_left(mine):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    assert "rank 1 of 2" in str(error.value)
    assert "stopped: TrainingError: the disk is full; start it again" in str(error.value)
