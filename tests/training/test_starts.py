"""Several starts: the one that explains validation pairs best goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixdpo.training import run
from mixdpo.training.trainer import SEED_STRIDE

Make = Callable[..., Any]
OPTIONS = {"symmetry": {"kind": "noise", "scale": 0.1}, "batch_pairs": 16, "epochs": 3, "evaluate_every": 4}
STARTS = {"number": 3, "steps": 4}


def test_it_is_the_whole_run_of_one_of_the_seeds(make_task: Make, train: Make) -> None:
    task, held_out = make_task([6, 6], each=4), make_task([4, 4], each=4, seed=1)
    chosen = train(task, held_out, 2, seed=5, starts=STARTS, **OPTIONS)
    alone = [train(task, held_out, 2, seed=5 + number * SEED_STRIDE, **OPTIONS) for number in range(3)]
    evidence = [each.result.history[3]["validation_marginal"] for each in alone]
    best = alone[max(range(3), key=evidence.__getitem__)]
    # the rows of the trial have no validation figure: it was looked at once, after them
    assert chosen.result.history[4:] == best.result.history[4:]
    for name, tensor in chosen.experts.state_dict().items():
        assert torch.equal(tensor, best.experts.state_dict()[name]), name


def test_a_killed_run_goes_on_with_the_chosen_start(
    make_task: Make, train: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, held_out = make_task([6, 6], each=4), make_task([4, 4], each=4, seed=1)
    options = OPTIONS | {"starts": STARTS, "checkpoint_every": 2}
    whole = train(task, held_out, 2, **options)
    step = run.Run.step

    class Killed(BaseException):
        pass

    def dying(self: Any, number: int) -> Any:
        if number == 7:
            raise Killed
        return step(self, number)

    monkeypatch.setattr(run.Run, "step", dying)
    with pytest.raises(Killed):
        train(task, held_out, 2, checkpoint=tmp_path / "work", **options)
    taken: list[int] = []

    def counting(self: Any, number: int) -> Any:
        taken.append(number)
        return step(self, number)

    monkeypatch.setattr(run.Run, "step", counting)
    resumed = train(task, held_out, 2, checkpoint=tmp_path / "work", **options)
    assert taken == [6, 7, 8]  # no start is tried again
    assert resumed.result == whole.result


def test_one_expert_has_nothing_to_choose(make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    assert train(task, task, 1, starts=STARTS).result == train(task, task, 1).result
