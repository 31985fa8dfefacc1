from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixdpo.errors import TrainingError
from mixdpo.training import run, trainer

Make = Callable[..., Any]
NOISE = {"kind": "noise", "scale": 0.1}
GATE = {"kind": "gate", "hidden": 4, "entropy": 0.01, "rest_steps": 0, "learning_rate": 1e-3}
GLOBAL = {"kind": "global", "alpha": 1.5, "smoothing": 0.9}
FIXED = {"kind": "fixed", "values": None}
LOWRANK = {"kind": "shared", "head": "lowrank", "rank": 4, "trunk": "frozen"}
TRAINABLE = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}


@pytest.mark.parametrize("experts", [1, 3])
def test_the_first_loss_is_ln_2(experts: int, make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    first = train(task, task, experts, architecture=LOWRANK, symmetry={"kind": "none"}).result.history[0]
    assert first["expert_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["train_marginal"] == pytest.approx(-math.log(2), abs=1e-6)
    assert first["spread"] == pytest.approx(0, abs=1e-6)
    assert [first[f"margin_{expert}"] for expert in range(experts)] == pytest.approx([0.0] * experts, abs=1e-6)


@pytest.mark.parametrize("latent", ["pair", "annotator"])
@pytest.mark.parametrize("weights", [FIXED, GLOBAL, GATE], ids=["fixed", "global", "gate"])
def test_a_small_em_step_on_all_pairs_never_lowers_the_bound(
    weights: dict[str, Any], latent: str, make_task: Make, train: Make
) -> None:
    task = make_task([5, 5, 5], each=4)
    trained = train(
        task,
        task,
        3,
        latent=latent,
        weights=weights,
        symmetry=NOISE,
        architecture=TRAINABLE,
        batch_pairs=1000,
        epochs=40,
        learning_rate=5e-4,
    )
    marginals = [row["train_marginal"] for row in trained.result.history]
    assert len(marginals) == 40
    # what float32 and the gate's entropy reward may take
    assert min(after - before for before, after in itertools.pairwise(marginals)) > -2e-5
    assert marginals[-1] > marginals[0] + 0.01
    for row in trained.result.history:
        assert row["bound_gap"] == pytest.approx(0, abs=1e-5)


def test_a_gate_rests_for_its_first_steps_and_then_learns(make_task: Make, train: Make) -> None:
    task = make_task([4, 4], by_domain=True)
    options = {"symmetry": NOISE, "batch_pairs": 16, "epochs": 3}
    learning = GATE | {"learning_rate": 0.03}
    rows = train(task, task, 2, weights=learning | {"rest_steps": 6}, **options).result.history
    assert [row["entropy_w"] for row in rows[:7]] == pytest.approx([1.0] * 7, abs=1e-6)
    assert rows[-1]["entropy_w"] < 0.999
    # while it rests its experts learn as under fixed weights
    fixed = train(task, task, 2, weights=FIXED, **options).result.history
    for row, plain in zip(rows[:6], fixed[:6], strict=True):
        assert row["train_marginal"] == pytest.approx(plain["train_marginal"], abs=1e-5)


def test_what_a_step_logs_adds_up(make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    for row in train(task, task, 2, weights=GATE, symmetry=NOISE, tempering={"start": 3.0, "steps": 99}).result.history:
        assert sum(row[f"usage_{expert}"] for expert in range(2)) == pytest.approx(1)
        assert row["loss"] == pytest.approx(row["expert_loss"] + row["gate_loss"], abs=1e-6)
        assert row["elbo"] + row["bound_gap"] == pytest.approx(row["train_marginal"], abs=1e-6)
        assert row["bound_gap"] > -1e-6
        assert 0 <= row["entropy_q"] <= 1.000001


def test_two_runs_are_the_same_run_and_another_seed_is_another(make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    first = train(task, task, 2, symmetry=NOISE, seed=5).result.history
    torch.manual_seed(1234)
    assert train(task, task, 2, symmetry=NOISE, seed=5).result.history == first
    assert train(task, task, 2, symmetry=NOISE, seed=6).result.history != first


def test_the_tile_size_changes_nothing_but_rounding(make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    whole = train(task, task, 2, symmetry=NOISE, architecture=TRAINABLE).result.history
    tiled = train(task, task, 2, symmetry=NOISE, architecture=TRAINABLE, tile_tokens=7).result.history
    for one, other in zip(whole, tiled, strict=True):
        assert one["train_marginal"] == pytest.approx(other["train_marginal"], abs=1e-4)


class Killed(BaseException):
    """What no handler in the program catches."""


def kill_and_resume(
    die_at: int, train: Make, task: Any, work: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[Any, list[int]]:
    """The resumed run, and the steps that it took."""
    step = run.Run.step
    taken: list[int] = []

    def dying(run: Any, number: int) -> Any:
        if number == die_at:
            raise Killed
        return step(run, number)

    def counting(run: Any, number: int) -> Any:
        taken.append(number)
        return step(run, number)

    monkeypatch.setattr(run.Run, "step", dying)
    with pytest.raises(Killed):
        train(task, task, 2, checkpoint=work, **options)
    monkeypatch.setattr(run.Run, "step", counting)
    return train(task, task, 2, checkpoint=work, **options), taken


def assert_same_run(resumed: Any, whole: Any) -> None:
    assert resumed.result == whole.result
    for part in ("experts", "weighting", "likelihood"):
        wanted = getattr(whole, part).state_dict()
        for name, tensor in getattr(resumed, part).state_dict().items():
            assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize("weights", [GLOBAL, GATE], ids=["global", "gate"])
@pytest.mark.parametrize("architecture", [TRAINABLE, {"kind": "independent"}], ids=["shared", "independent"])
@pytest.mark.parametrize("die_at", [3, 7])
def test_a_killed_run_goes_on_to_the_same_end_bit_for_bit(
    die_at: int,
    architecture: dict[str, Any],
    weights: dict[str, Any],
    make_task: Make,
    train: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make_task([4, 4])
    options = {
        "weights": weights,
        "architecture": architecture,
        "symmetry": {"kind": "partition", "steps": 4},
        "tempering": {"start": 2.0, "steps": 6},
        "batch_pairs": 16,
        "epochs": 3,
        "evaluate_every": 3,
        "checkpoint_every": 2,
    }
    whole = train(task, task, 2, **options)
    resumed, taken = kill_and_resume(die_at, train, task, tmp_path / "work", monkeypatch, **options)
    assert taken[0] == die_at - die_at % 2  # the last checkpoint before the kill, and no work before it is repeated
    assert_same_run(resumed, whole)


# everything that has a state of its own, all at once
EVERYTHING = {
    "weights": GATE
    | {
        "annotators": {"width": 3, "unknown": 0.1},
        "metadata": ["domain"],
        "balance": {"strength": 0.1, "steps": 5},
        "floor": 0.1,
    },
    "noise": {"kind": "learned", "epsilon": 0.1},
    "betas": [0.5, 0.4],
    "margins": "token",
    "nll": 0.05,
    "carry": 0.9,
    "relaxation": {"straight_through": False, "start": 2.0, "floor": 0.2, "steps": 5, "shape": "exponential"},
    "sparsity": {"top": 1, "by": "responsibilities"},
    "reseed": {"usage": 0.49, "patience": 1, "steps": 2},
    "symmetry": NOISE,
}


@pytest.mark.parametrize("die_at", [3, 7])
def test_a_killed_run_with_all_options_on_goes_on_bit_for_bit(
    die_at: int, make_task: Make, train: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task([4, 4], each=10)  # annotators larger than a batch, so that evidence is carried, too
    options = EVERYTHING | {
        "tempering": {"start": 2.0, "steps": 6, "shape": "exponential"},
        "batch_pairs": 8,
        "evaluate_every": 3,
        "checkpoint_every": 2,
    }
    whole = train(task, task, 2, **options)
    assert sum(row["reseeded"] for row in whole.result.history) > 0
    resumed, _ = kill_and_resume(die_at, train, task, tmp_path / "work", monkeypatch, **options)
    assert_same_run(resumed, whole)


def test_a_reference_that_is_not_finite_stops_the_run_with_step_and_pairs(make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    task.pairs.chosen_reference[5] = float("nan")
    with pytest.raises(TrainingError) as error:
        train(task, make_task([4, 4]), 2, batch_pairs=1000)
    assert str(error.value) == (
        "the loss of step 1 is not finite (pairs with a non-finite margin: pair-5); lower training.learning_rate or "
        "training.clip in params.yaml, or use dtype float32"
    )


def test_a_run_that_blows_up_stops_instead_of_saving_what_is_left(make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    with pytest.raises(TrainingError, match=r"the (loss|gradient) of step \d+ is not finite"):
        train(task, task, 2, learning_rate=1e30, epochs=3, architecture=TRAINABLE)


def test_a_gradient_that_overflows_never_reaches_the_weights(make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    with pytest.raises(TrainingError) as error:
        train(task, task, 1, beta=1e30, architecture=TRAINABLE)
    assert "the gradient of step 1 is not finite (pairs with a non-finite margin: none by itself)" in str(error.value)


def test_a_split_without_pairs_is_refused(make_task: Make, train: Make) -> None:
    task = make_task([4, 4])
    none = task._replace(
        pairs=dataclasses.replace(task.pairs, ids=[], chosen=[], rejected=[], annotators=torch.zeros(0))
    )
    with pytest.raises(TrainingError) as error:
        train(task, none, 2)
    assert str(error.value) == (
        "64 training and 0 validation pairs; both splits need some: raise preferences.annotators or "
        "candidates.prompts in params.yaml"
    )


def test_training_cannot_see_the_style() -> None:
    assert "style" not in {field.name for field in dataclasses.fields(trainer.PreferencePairs)}
