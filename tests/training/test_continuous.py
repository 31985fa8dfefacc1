from __future__ import annotations

import copy
import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mixdpo.errors import ConfigError, TrainingError
from mixdpo.objective import leave_one_out_weights
from mixdpo.policy.continuous import ContinuousPolicy
from mixdpo.policy.likelihood import Likelihood
from mixdpo.training import PreferencePairs
from mixdpo.training import continuous as module
from mixdpo.training.continuous import ContinuousResult, LatentTraining, train_continuous
from mixdpo.training.latent_heldout import leave_some_out, prior_logits, validation_marginal

Make = Callable[..., Any]
ANNEALED = LatentTraining(kl_steps=80)


class Run(NamedTuple):
    policy: ContinuousPolicy
    result: ContinuousResult


@pytest.fixture(scope="session")
def fit(new_model: Make, tokenizer: Any, make_settings: Make) -> Callable[..., Run]:
    def run(
        train: PreferencePairs,
        validation: PreferencePairs,
        latent: LatentTraining = ANNEALED,
        seed: int = 0,
        dimensions: int = 1,
        checkpoint: Path | None = None,
        **changes: Any,
    ) -> Run:
        generator = torch.Generator().manual_seed(seed)
        policy = ContinuousPolicy.new(new_model(), tokenizer, dimensions, 4, Likelihood(0.5), generator)
        settings = make_settings(**({"epochs": 12} | changes))
        result = train_continuous(policy, train, validation, settings, latent, seed, checkpoint=checkpoint)
        return Run(policy, result)

    return run


def swapped(pairs: PreferencePairs, where: list[bool]) -> PreferencePairs:
    """The other side was chosen in these pairs."""
    mask = torch.tensor(where)
    sides = ((pairs.chosen, pairs.rejected), (pairs.rejected, pairs.chosen))
    chosen, rejected = ([b if swap else a for a, b, swap in zip(*side, where, strict=True)] for side in sides)
    return dataclasses.replace(
        pairs,
        chosen=chosen,
        rejected=rejected,
        chosen_reference=torch.where(mask, pairs.rejected_reference, pairs.chosen_reference),
        rejected_reference=torch.where(mask, pairs.chosen_reference, pairs.rejected_reference),
    )


@pytest.fixture(scope="session")
def graded(make_task: Make) -> Callable[..., tuple[Any, Tensor]]:
    """A task of annotators who like red over green to various degrees, from −3 to 3 nats, and these degrees."""

    def make(annotators: int, seed: int, each: int = 8) -> tuple[Any, Tensor]:
        task = make_task([annotators, 0], each=each, seed=seed)
        rng = random.Random(seed)
        tastes = [6 * place / (annotators - 1) - 3 for place in range(annotators)]
        rng.shuffle(tastes)
        where = [rng.random() > 1 / (1 + math.exp(-tastes[code])) for code in task.pairs.annotators.tolist()]
        return task._replace(pairs=swapped(task.pairs, where)), torch.tensor(tastes)

    return make


def correlation(one: Tensor, other: Tensor) -> float:
    return abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item())


@pytest.mark.parametrize("seed", range(2))
def test_a_taste_by_degrees_is_recovered_and_beats_plain_dpo(seed: int, graded: Make, fit: Make, train: Make) -> None:
    task, tastes = graded(40, seed=0)
    held_out, new_tastes = graded(20, seed=1)
    run = fit(task.pairs, held_out.pairs, seed=seed)
    assert correlation(run.result.posterior.mean[:, 0], tastes) >= 0.8
    assert run.result.findings == []
    # new annotators, from their comparisons alone
    by_person = [taste_of(run.policy, held_out.pairs, code) for code in range(8)]
    assert correlation(torch.tensor(by_person), new_tastes[:8]) >= 0.8
    plain = train(task, held_out, 1, epochs=3).result.history[-1]["validation_marginal"]
    assert run.result.history[-1]["validation_marginal"] > plain + 0.04


def taste_of(policy: ContinuousPolicy, pairs: PreferencePairs, code: int) -> float:
    own = (pairs.annotators == code).nonzero()[:, 0].tolist()
    text = policy.tokenizer.decode
    comparisons = [
        (
            text(pairs.chosen[i].prompt[1:]),
            text(pairs.chosen[i].completion[:-1]),
            text(pairs.rejected[i].completion[:-1]),
        )
        for i in own
    ]
    return policy.personalise(comparisons, steps=30, points=8).mean[0].item()


def test_two_groups_part_and_three_need_a_plane(make_task: Make, fit: Make) -> None:
    two, held_two = make_task([20, 20], seed=0), make_task([10, 10], seed=1)
    run = fit(two.pairs, held_two.pairs)
    style = torch.tensor([0.0] * 20 + [1.0] * 20)
    assert correlation(run.result.posterior.mean[:, 0], style) >= 0.9
    three, held_three = make_task([10, 10, 10], seed=0), make_task([6, 6, 6], seed=1)
    line, plane = (fit(three.pairs, held_three.pairs, dimensions=d, epochs=16).result for d in (1, 2))
    assert plane.history[-1]["active_dimensions"] == 2
    assert plane.history[-1]["validation_marginal"] > line.history[-1]["validation_marginal"] + 0.03


def test_predictions_from_fitted_posteriors_are_those_of_quadrature(graded: Make, fit: Make) -> None:
    """Leave-some-out by a Gaussian q against leave-one-out by the exact posterior on a grid."""
    run = fit(graded(40, seed=0)[0].pairs, graded(20, seed=1)[0].pairs)
    pairs = graded(4, seed=2)[0].pairs
    logits, log_points = prior_logits(run.policy, pairs, 64)
    weights = leave_one_out_weights(logits, log_points, pairs.annotators)
    exact = torch.logsumexp(weights + torch.nn.functional.logsigmoid(logits), dim=-1)
    fitted = leave_some_out(run.policy, pairs, folds=8, steps=30, learning_rate=0.2, points=8)
    assert fitted.mean() > -math.log(2) + 0.05
    assert fitted.mean().item() == pytest.approx(exact.mean().item(), abs=0.02)
    assert correlation(fitted, exact) > 0.97
    with pytest.raises(ConfigError, match=r"1 folds: .* give at least 2"):
        leave_some_out(run.policy, pairs, folds=1)


def test_predictions_do_not_depend_on_who_is_fitted_together(
    graded: Make, fit: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = graded(6, seed=0, each=3)[0].pairs
    policy = fit(pairs, pairs, epochs=4).policy
    whole = leave_some_out(policy, pairs, folds=2, steps=10)
    monkeypatch.setattr("mixdpo.training.latent_heldout.TOKENS", 50)
    parts = leave_some_out(policy, pairs, folds=2, steps=10)
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)


def test_one_pair_an_annotator_is_predicted_from_the_prior(make_task: Make, fit: Make) -> None:
    task = make_task([6, 6], each=1)
    policy = fit(task.pairs, task.pairs, epochs=2).policy
    alone = leave_some_out(policy, task.pairs, folds=2, points=32).sum().item()
    assert alone / 12 == pytest.approx(validation_marginal(policy, task.pairs, 32), abs=1e-4)


def test_the_bound_is_below_the_marginal_of_the_training_pairs(graded: Make, fit: Make) -> None:
    """All pairs in each step; the draws of z leave some noise in the bound."""
    pairs = graded(10, seed=0)[0].pairs
    run = fit(pairs, pairs, LatentTraining(samples=8), batch_pairs=1000, epochs=50)
    last = run.result.history[-1]
    assert last["elbo"] <= last["validation_marginal"] + 0.01
    assert last["elbo"] > last["validation_marginal"] - 0.06
    assert last["loss"] == pytest.approx(-last["elbo"], abs=1e-6)
    assert last["elbo"] > run.result.history[0]["elbo"] + 0.03


def test_gradients_reach_heads_and_posteriors(make_task: Make, fit: Make, make_settings: Make) -> None:
    task = make_task([3, 3])
    policy = fit(task.pairs, task.pairs, epochs=1).policy
    settings = make_settings(epochs=12)
    run = module._Run(policy, task.pairs, settings, ANNEALED, 0, torch.float32)
    before = copy.deepcopy(run.trained.state_dict())
    run.step(0)
    run.step(1)
    for name, tensor in run.trained.state_dict().items():
        if name.startswith("heads.base"):
            continue
        assert not torch.equal(tensor, before[name]), name
    assert all(not parameter.requires_grad for parameter in policy.reference.parameters())


def test_the_weight_of_the_divergence_rises_to_1(make_task: Make, fit: Make) -> None:
    task = make_task([4, 4])
    rows = fit(task.pairs, task.pairs, LatentTraining(kl_start=0.2, kl_steps=4), epochs=3).result.history
    assert [row["kl_weight"] for row in rows[:5]] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert fit(task.pairs, task.pairs, LatentTraining(), epochs=1).result.history[0]["kl_weight"] == 1


def test_a_latent_with_nothing_to_say_is_told(make_task: Make, fit: Make) -> None:
    """All love red: the common change says it all, and the posteriors fall back to the prior."""
    task, held_out = make_task([20, 0], seed=0), make_task([10, 0], seed=1)
    result = fit(task.pairs, held_out.pairs, LatentTraining(), epochs=24).result
    assert [finding.name for finding in result.findings] == ["posterior-collapse"]
    assert result.history[-1]["validation_marginal"] > -0.25


class Killed(BaseException):
    """What no handler in the program catches."""


def test_a_killed_run_goes_on_to_the_same_end_bit_for_bit(
    make_task: Make, fit: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task([4, 4])
    # fewer pairs a batch than an annotator has: their divergence is paid in parts
    options = {"epochs": 3, "batch_pairs": 6, "evaluate_every": 3, "checkpoint_every": 2, "dimensions": 2}
    whole = fit(task.pairs, task.pairs, **options)
    step, taken = module._Run.step, []

    def dying(run: Any, number: int) -> Any:
        if number == 7:
            raise Killed
        return step(run, number)

    def counting(run: Any, number: int) -> Any:
        taken.append(number)
        return step(run, number)

    monkeypatch.setattr(module._Run, "step", dying)
    with pytest.raises(Killed):
        fit(task.pairs, task.pairs, checkpoint=tmp_path / "work", **options)
    monkeypatch.setattr(module._Run, "step", counting)
    resumed = fit(task.pairs, task.pairs, checkpoint=tmp_path / "work", **options)
    assert taken[0] == 6
    assert resumed.result.history == whole.result.history
    assert torch.equal(resumed.result.posterior.mean, whole.result.posterior.mean)
    for name, tensor in resumed.policy.state_dict().items():
        assert torch.equal(tensor, whole.policy.state_dict()[name]), name


def test_bad_input_says_what_to_give(make_task: Make, fit: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="kl_start and start_scale above 0"):
        LatentTraining(kl_start=0.0)
    task = make_task([4, 4])
    with pytest.raises(ConfigError, match=r"by one process, not by 4, .* start one, and leave training.parallel out"):
        fit(task.pairs, task.pairs, parallel={"data": 2, "experts": 2})
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="by one process, not by 3"):
        fit(task.pairs, task.pairs)
    monkeypatch.delenv("WORLD_SIZE")
    none = dataclasses.replace(task.pairs, ids=[], chosen=[], rejected=[], annotators=torch.zeros(0))
    with pytest.raises(TrainingError, match="64 training and 0 validation pairs"):
        fit(task.pairs, none)
    task.pairs.chosen_reference[5] = float("nan")
    with pytest.raises(TrainingError, match=r"the loss of step 1 is not finite .*pair-5.*lower training.learning_rate"):
        fit(task.pairs, make_task([4, 4]).pairs, batch_pairs=1000)
