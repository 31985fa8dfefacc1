from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mixdpo.errors import DataError
from mixdpo.policy.loading import frozen_reference
from mixdpo.policy.tokens import TokenRow, pad
from mixdpo.training import PreferencePairs

Make = Callable[..., Any]


def pairs_of(chosen: list[TokenRow], rejected: list[TokenRow]) -> PreferencePairs:
    count = len(chosen)
    unknown = torch.zeros(count)
    names = [f"pair-{place}" for place in range(count)]
    return PreferencePairs(names, chosen, rejected, torch.arange(count), unknown, unknown, unknown)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (TokenRow([1, 2], []), "has 2 tokens of a prompt and 0 of a completion"),
        (TokenRow([], [1, 2]), "has 0 tokens of a prompt and 2 of a completion"),
    ],
)
def test_a_row_without_a_prompt_or_a_completion_is_refused_with_its_pair(row: TokenRow, told: str) -> None:
    sound = TokenRow([1], [2])
    with pytest.raises(DataError, match=f"the chosen row of pair pair-1 {told}; .* drop the pair"):
        pairs_of([sound, row], [sound, sound])
    with pytest.raises(DataError, match="the rejected row of pair pair-0 "):
        pairs_of([sound, sound], [row, sound])


def test_lengths_are_those_of_the_longer_row_and_a_model_reads_no_more_than_it_can() -> None:
    pairs = pairs_of([TokenRow([1], [2]), TokenRow([1], [2])], [TokenRow([1], [2, 3]), TokenRow([1], [2])])
    assert pairs.lengths() == [3, 2]
    pairs.refuse_longer(3)
    pairs.refuse_longer(None)
    with pytest.raises(DataError, match=r"pair pair-0 has 3 tokens but the model reads at most 2; .*max_tokens"):
        pairs.refuse_longer(2)


@pytest.mark.parametrize("place", ["training", "validation"])
def test_training_refuses_a_pair_that_the_experts_cannot_read(place: str, make_task: Make, train: Make) -> None:
    task, other = make_task([4, 4]), make_task([4, 4])
    spoiled = task if place == "training" else other
    spoiled.pairs.rejected[7] = TokenRow([1] * 30, [2, 3, 4])
    with pytest.raises(DataError, match="pair pair-7 has 33 tokens but the model reads at most 32"):
        train(task, other, 2)


def test_completions_of_one_token_train(make_task: Make, new_model: Make, train: Make) -> None:
    task = make_task([4, 4])
    reference = frozen_reference(new_model())
    for side, known in (
        (task.pairs.chosen, task.pairs.chosen_reference),
        (task.pairs.rejected, task.pairs.rejected_reference),
    ):
        side[:] = [TokenRow(row.prompt, row.completion[:1]) for row in side]
        known.copy_(reference(pad(side))[:, 0].detach())
    history = train(task, task, 1, epochs=20, margins="token").result.history
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert history[-1]["validation_marginal"] > -math.log(2)
