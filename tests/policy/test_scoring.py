from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mixdpo.errors import DataError
from mixdpo.policy import MixturePolicy, scoring
from mixdpo.policy.scoring import prompt_features, score_rows
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


def test_no_rows_and_too_long_rows_are_refused(make_policy: MakePolicy) -> None:
    models = make_policy().expert_models
    with pytest.raises(DataError, match="there are no rows to score; give at least one prompt"):
        score_rows(models, [])
    with pytest.raises(DataError, match="row 0 has 65 tokens but the model reads at most 64; shorten the text"):
        score_rows(models, [TokenRow([0] * 64, [1])])
