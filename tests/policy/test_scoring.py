from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import DataError
from mixdpo.policy import MixturePolicy, scoring
from mixdpo.policy.scoring import prompt_batches, prompt_features, score_rows
from mixdpo.policy.tokens import TokenRow, pad

MakePolicy = Callable[..., MixturePolicy]
ROWS = [
    TokenRow([0, 40, 41], [50, 51, 0]),
    TokenRow([0], [60]),
    TokenRow([0, *range(40, 60)], [70]),
    TokenRow([0], [7]),
]


@pytest.mark.parametrize("tokens", [1, 30, 8192])
def test_scores_and_features_come_in_the_order_of_the_rows_however_they_are_batched(
    tokens: int, make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = make_policy("lowrank").expert_models
    monkeypatch.setattr(scoring, "BATCH_TOKENS", tokens)
    with torch.no_grad():
        torch.testing.assert_close(score_rows(models, ROWS), models(pad(ROWS)))
        torch.testing.assert_close(prompt_features(models, ROWS), models.prompt_features(pad(ROWS)))


PROMPTS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), min_size=1, max_size=40)


@given(PROMPTS, st.integers(1, 200))
def test_rows_of_a_prompt_stand_together_and_each_comes_once(drawn: list[tuple[int, int]], tokens: int) -> None:
    rows = [TokenRow([prompt] * (prompt + 1), [7] * length) for prompt, length in drawn]
    batches = list(prompt_batches(rows, tokens))
    order = [place for batch in batches for place in batch]
    assert sorted(order) == list(range(len(rows)))
    prompts = [rows[place].prompt[0] for place in order]
    assert len(list(groupby(prompts))) == len(set(prompts))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(rows[place]) for place in batch) <= tokens


def test_rows_of_a_prompt_are_scored_as_each_by_itself(make_policy: MakePolicy) -> None:
    models = make_policy("lowrank").expert_models
    rows = [TokenRow([0, 40, 41, 42], [50 + place] * (place + 1)) for place in (3, 0, 5)] + ROWS
    alone = torch.cat([score_rows(models, [row]) for row in rows])
    torch.testing.assert_close(score_rows(models, rows), alone, rtol=0, atol=1e-5)


def test_no_rows_and_too_long_rows_are_refused(make_policy: MakePolicy) -> None:
    models = make_policy().expert_models
    with pytest.raises(DataError, match="there are no rows to score; give at least one prompt"):
        score_rows(models, [])
    with pytest.raises(DataError, match="row 0 has 65 tokens but the model reads at most 64; shorten the text"):
        score_rows(models, [TokenRow([0] * 64, [1])])
