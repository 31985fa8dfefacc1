from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mixdpo.errors import TrainingError
from mixdpo.policy.loading import new_experts
from mixdpo.training import fit as module
from mixdpo.training.fit import Fit
from mixdpo.training.memory import GIB

Make = Callable[..., Any]
CPU = torch.device("cpu")
TRAINABLE = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}


@pytest.fixture(scope="module")
def task(make_task: Make) -> Any:
    return make_task([4, 4], each=4)


@pytest.fixture
def fit(task: Any, new_model: Make) -> Callable[..., Fit]:
    """A fit with memory for so many pairs of 7 tokens, 4 of them completions, their layers kept or run again."""

    def make(pairs: float | None = None, recompute: bool = False, **architecture: Any) -> Fit:
        experts = new_experts(new_model(), 2, architecture or TRAINABLE, torch.Generator())
        made = Fit(experts, task.pairs, CPU)
        if pairs is not None:
            made.room = round(made.needs.passing(1000, 600, recompute, 1) * pairs * 7 / 1000)
        return made

    return make


def test_a_batch_goes_whole_where_it_fits(fit: Callable[..., Fit]) -> None:
    way = fit().way(range(16))
    assert way.whole
    assert way.pieces == [list(range(16))]
    assert not way.recompute


def test_layers_are_run_again_before_a_batch_is_cut(fit: Callable[..., Fit]) -> None:
    kept, again = (fit().needs.passing(7 * 16, 4 * 16, recompute, 1) for recompute in (False, True))
    short = fit()
    short.room = (kept + again) // 2
    way = short.way(range(16))
    assert way.whole
    assert way.recompute


def test_pieces_hold_every_pair_once_and_each_fits(fit: Callable[..., Fit]) -> None:
    short = fit(3.0)
    way = short.way(range(3, 19))
    assert 4 < len(way.pieces) < 10
    assert not way.recompute
    assert [place for piece in way.pieces for place in piece] == list(range(16))
    for piece in way.pieces:
        sizes = [short.size(3 + place) for place in piece]
        needed = short.needs.passing(sum(s.trunk for s in sizes), sum(s.completions for s in sizes), False, 1)
        assert needed <= (short.room or 0)


def test_whole_models_go_in_pieces_where_not_all_of_them_fit_at_once(fit: Callable[..., Fit]) -> None:
    short = fit(17, kind="independent")
    assert not short.way(range(16)).whole or short.way(range(16)).recompute
    assert short.way(range(16), models=1).whole


def test_a_pair_that_does_not_fit_by_itself_is_refused_with_its_name(fit: Callable[..., Fit]) -> None:
    short = fit(0.1)
    with pytest.raises(TrainingError, match=r"pair pair-\d+ has \d+ tokens and needs .* lower training.max_tokens"):
        short.way(range(8))


def test_memory_can_be_bounded_from_params(task: Any, new_model: Make) -> None:
    experts = new_experts(new_model(), 2, TRAINABLE, torch.Generator())
    process = Fit(experts, task.pairs, CPU).needs.process
    fixed = 4 * sum(parameter.nbytes for parameter in experts.parameters()) + process
    bounded = Fit(experts, task.pairs, CPU, memory_gib=(fixed + 5000) / GIB)
    assert bounded.room == pytest.approx(5000, abs=1)
    with pytest.raises(TrainingError, match=r"leave no room for a step: .*experts.*adapters.*memory_gib"):
        Fit(experts, task.pairs, CPU, memory_gib=fixed / 2 / GIB)


def test_a_run_within_a_bound_trains_and_says_how(
    task: Any, new_model: Make, train: Make, caplog: pytest.LogCaptureFixture
) -> None:
    made = Fit(new_experts(new_model(), 2, TRAINABLE, torch.Generator()), task.pairs, CPU)
    gib = sum((made.needs.weights, made.needs.learning, made.needs.process, made.needs.passing(30, 20, False, 1))) / GIB
    options = {"architecture": TRAINABLE, "batch_pairs": 16}
    with caplog.at_level(logging.INFO, logger=module.__name__):
        bounded = train(task, task, 2, memory_gib=gib, **options)
    assert "Of 2 steps 2 go in pieces" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger=module.__name__):
        free = train(task, task, 2, **options)
    assert "Every step goes whole" in caplog.text
    assert bounded.result.history[-1] == pytest.approx(free.result.history[-1], abs=1e-5)
