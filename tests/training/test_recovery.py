"""Groups of annotators that nobody named are found again (method.md §5 and §6)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mixdpo.evaluation.specialisation import recovery
from mixdpo.objective import preference_margins, responsibilities
from mixdpo.policy.tokens import pad

Make = Callable[..., Any]


@torch.no_grad()
def posterior(trained: Any, task: Any, by_annotator: bool = True) -> Tensor:
    pairs = task.pairs
    chosen, rejected = trained.experts(pad(pairs.rows(range(len(pairs))))).chunk(2)
    margins = preference_margins(chosen, rejected, pairs.chosen_reference, pairs.rejected_reference, beta=0.5)
    log_weights = trained.weighting(pairs.features, len(pairs))
    return responsibilities(margins, log_weights, pairs.annotators if by_annotator else None)


def best_accuracy(found: Tensor, truth: Tensor) -> float:
    """Share of pairs whose expert is its style, under the best naming of experts."""
    names = itertools.permutations(range(int(truth.max()) + 1))
    return max((torch.tensor(name)[found] == truth).float().mean().item() for name in names)


NOISE, PARTITION = {"kind": "noise", "scale": 0.1}, {"kind": "partition", "steps": 3}
GLOBAL = {"kind": "global", "alpha": 1.5, "smoothing": 0.9}


def found_groups(trained: Any, held_out: Any) -> tuple[float, float, float]:
    """Accuracy after the best assignment, adjusted Rand index, and the accuracy of the worst group, of annotators."""
    _, first = np.unique(held_out.pairs.annotators.numpy(), return_index=True)
    q, styles = posterior(trained, held_out)[first].numpy(), [str(held_out.styles[place].item()) for place in first]
    result = recovery(q, styles)
    right = np.array([result["assignment"][style] for style in styles]) == q.argmax(axis=1)
    worst = min(right[np.array(styles) == style].mean() for style in set(styles))
    return result["accuracy"], result["ari"], float(worst)


@pytest.mark.parametrize(
    ("train_groups", "test_groups", "seeds", "options"),
    [
        ([20, 20], [10, 10], 5, {}),
        ([20, 20, 20], [10, 10, 10], 5, {}),
        # with so many, one start in three ends with two tastes in one expert; three starts take five times as long
        ([20] * 5, [10] * 5, 2, {"each": 16, "epochs": 6, "starts": {"number": 3, "steps": 80}}),
        ([54, 6], [27, 3], 5, {"weights": GLOBAL}),
    ],
    ids=["two", "three", "five", "90-to-10"],
)
def test_groups_are_recovered_with_every_seed(
    train_groups: list[int], test_groups: list[int], seeds: int, options: dict[str, Any], make_task: Make, train: Make
) -> None:
    settings = {"epochs": 8, "symmetry": NOISE} | options
    each = settings.pop("each", 8)
    task, held_out = make_task(train_groups, each, seed=0), make_task(test_groups, each, seed=1)
    for seed in range(seeds):
        trained = train(task, held_out, len(train_groups), seed=seed, **settings)
        accuracy, ari, worst = found_groups(trained, held_out)
        assert accuracy >= 0.9, seed
        assert ari >= 0.8, seed
        assert worst >= 0.8, seed


def test_a_partition_of_annotators_recovers_them_too(make_task: Make, train: Make) -> None:
    task, held_out = make_task([20, 20, 20], seed=0), make_task([10, 10, 10], seed=1)
    trained = train(task, held_out, 3, epochs=8, symmetry=PARTITION)
    assert min(found_groups(trained, held_out)) >= 0.9
    assert trained.result.findings == []


@pytest.mark.parametrize(("symmetry", "right"), [({"kind": "none"}, False), (NOISE, True)], ids=["equal", "default"])
def test_equal_starts_find_nobody_and_the_default_cures_it(
    symmetry: dict[str, Any], right: bool, make_task: Make, train: Make
) -> None:
    task, held_out = make_task([20, 20], seed=0), make_task([10, 10], seed=1)
    trained = train(task, held_out, 2, epochs=8, symmetry=symmetry)
    accuracy, ari, worst = found_groups(trained, held_out)
    assert (accuracy >= 0.9, ari >= 0.8, worst >= 0.8) == (right, right, right)


def test_a_latent_for_each_pair_recovers_clearly_less_than_one_for_each_annotator(make_task: Make, train: Make) -> None:
    task, held_out = make_task([20] * 3, seed=0), make_task([10] * 3, seed=1)
    found = {}
    for latent in ("annotator", "pair"):
        trained = train(task, held_out, 3, epochs=6, latent=latent, symmetry=NOISE)
        q = posterior(trained, held_out, by_annotator=latent == "annotator")
        last = trained.result.history[-1]
        found[latent] = (best_accuracy(q.argmax(dim=-1), held_out.styles), last["validation_marginal"])
    assert found["annotator"][0] > found["pair"][0] + 0.2
    assert found["annotator"][1] > found["pair"][1] + 0.1


def test_plain_dpo_finds_nothing_in_annotators_who_contradict_each_other(make_task: Make, train: Make) -> None:
    task, held_out = make_task([20, 20], seed=0), make_task([10, 10], seed=1)
    dpo = train(task, held_out, 1, epochs=6).result
    assert dpo.history[-1]["validation_marginal"] == pytest.approx(-0.69, abs=0.03)
    assert dpo.findings == []


def test_global_weights_learn_how_many_there_are_of_each(make_task: Make, train: Make) -> None:
    task, held_out = make_task([40, 10], seed=0), make_task([8, 2], seed=1)
    weights = {"kind": "global", "alpha": 1.5, "smoothing": 0.8}
    # all annotators in each step: a step of few sees shares that are off by chance
    trained = train(task, held_out, 2, epochs=50, batch_pairs=400, weights=weights, symmetry=NOISE)
    shares = trained.weighting.log_weights.exp().sort().values
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.8]), rtol=0, atol=0.03)
    assert best_accuracy(posterior(trained, held_out).argmax(dim=-1), held_out.styles) >= 0.9


def test_global_weights_count_people_not_pairs(make_task: Make, train: Make) -> None:
    task, held_out = make_task([20, 20], each=[12, 4], seed=0), make_task([8, 8], seed=1)
    weights = {"kind": "global", "alpha": 1.0, "smoothing": 0.8}
    trained = train(task, held_out, 2, epochs=50, batch_pairs=400, weights=weights, symmetry=NOISE)
    torch.testing.assert_close(trained.weighting.log_weights.exp(), torch.tensor([0.5, 0.5]), rtol=0, atol=0.05)


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_gate_learns_who_speaks_of_what(hidden: int, make_task: Make, train: Make) -> None:
    task, held_out = make_task([20, 20], seed=0, by_domain=True), make_task([10, 10], seed=1, by_domain=True)
    gate = {"kind": "gate", "hidden": hidden, "entropy": 0.01, "rest_steps": 0, "learning_rate": 3e-2}
    trained = train(task, held_out, 2, epochs=6, weights=gate, symmetry=NOISE)
    with torch.no_grad():
        weights = trained.weighting(held_out.pairs.features, len(held_out.pairs)).exp()
    assert best_accuracy(weights.argmax(dim=-1), held_out.domains) >= 0.95
    assert weights.max(dim=-1).values.mean() > 0.8
    assert trained.result.findings == []


def test_a_gate_stays_undecided_where_prompts_say_nothing_about_style(make_task: Make, train: Make) -> None:
    task, held_out = make_task([20, 20], seed=0), make_task([10, 10], seed=1)
    gate = {"kind": "gate", "hidden": 0, "entropy": 0.01, "rest_steps": 0, "learning_rate": 3e-2}
    trained = train(task, held_out, 2, epochs=6, weights=gate, symmetry=NOISE)
    with torch.no_grad():
        weights = trained.weighting(held_out.pairs.features, len(held_out.pairs)).exp()
    assert weights.max(dim=-1).values.mean() < 0.75
    assert best_accuracy(posterior(trained, held_out).argmax(dim=-1), held_out.styles) >= 0.9
