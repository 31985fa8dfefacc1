"""A gate that sees who compares serves those whom it knows better than strangers (method.md §4, personalisation)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixdpo.objective import marginal_log_likelihood
from mixdpo.policy.context import Context
from mixdpo.policy.tokens import pad

Make = Callable[..., Any]
GATE = {"kind": "gate", "hidden": 0, "entropy": 0.0, "rest_steps": 0, "learning_rate": 3e-2}
PEOPLE = {"prompt": False, "annotators": {"width": 4, "unknown": 0.2}}


@torch.no_grad()
def likelihood(trained: Any, task: Any, context: Context) -> float:
    """Of new comparisons, each predicted from the weights alone: nats a pair."""
    pairs = task.pairs
    chosen, rejected = trained.experts(pad(pairs.rows(range(len(pairs))))).chunk(2)
    tokens = pairs.completion_tokens(range(len(pairs)))
    margins = trained.likelihood.margins(chosen, rejected, pairs.chosen_reference, pairs.rejected_reference, *tokens)
    return float(marginal_log_likelihood(margins, weights(trained, context).log()).mean())


@torch.no_grad()
def weights(trained: Any, context: Context) -> Tensor:
    log_weights: Tensor = trained.weighting(trained.weighting.encode(context), len(context))
    return log_weights.exp()


def by_strangers(task: Any) -> Any:
    """The task as the training stage shows it to the gate."""
    return task._replace(context=task.context.with_strangers(task.pairs.ids, PEOPLE["annotators"]["unknown"]))


def nobody(context: Context) -> Context:
    return Context(context.prompts, context.prompt_features, None, context.metadata)


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_known_annotator_is_predicted_better_than_a_stranger(hidden: int, make_task: Make, train: Make) -> None:
    # the same people, twice: other comparisons
    task, later = make_task([20, 20], seed=0), make_task([20, 20], seed=1)
    trained = train(by_strangers(task), later, 2, epochs=10, weights=GATE | PEOPLE | {"hidden": hidden})
    assert trained.result.findings == []
    known, stranger = likelihood(trained, later, later.context), likelihood(trained, later, nobody(later.context))
    assert known > stranger + 0.2
    chosen = weights(trained, later.context).argmax(dim=-1)
    agreed = (chosen == later.styles).float().mean().item()
    assert max(agreed, 1 - agreed) >= 0.95


def test_a_stranger_gets_the_shares_of_those_who_are_known(make_task: Make, train: Make) -> None:
    task = make_task([30, 10], seed=0)
    trained = train(by_strangers(task), task, 2, epochs=25, weights=GATE | PEOPLE)
    stranger = weights(trained, nobody(task.context))[0]
    torch.testing.assert_close(stranger.sort().values, torch.tensor([0.25, 0.75]), rtol=0, atol=0.1)


def test_the_same_comparisons_and_seed_give_the_same_gate(make_task: Make, train: Make) -> None:
    task = make_task([6, 6], seed=0)
    first, second = (train(by_strangers(task), task, 2, weights=GATE | PEOPLE).weighting for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_frozen_gate_stays_uniform_while_the_experts_learn(make_task: Make, train: Make) -> None:
    task = make_task([12, 12], seed=0)
    trained = train(task, task, 2, epochs=4, weights=GATE | PEOPLE | {"frozen": True})
    torch.testing.assert_close(weights(trained, task.context), torch.full((len(task.pairs), 2), 0.5))
    assert trained.result.history[-1]["spread"] > 0.1


@pytest.mark.parametrize("kind", ["random", "domain"])
def test_heuristics_train_and_stay_what_they_are(kind: str, make_task: Make, train: Make) -> None:
    task = make_task([12, 12], seed=0, by_domain=True)
    table = {"experts": {"wall": 0, "sea": 1}} if kind == "domain" else {}
    trained = train(task, task, 2, epochs=4, weights={"kind": kind, "confidence": 0.9} | table)
    found = weights(trained, task.context)
    torch.testing.assert_close(found.max(dim=-1).values, torch.full((len(task.pairs),), 0.9))
    if kind == "domain":
        assert torch.equal(found.argmax(dim=-1), task.domains)
    assert list(trained.weighting.state_dict()) == []
