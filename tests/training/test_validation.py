from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mixdpo.objective import annotator_log_likelihood
from mixdpo.training import Mixture
from mixdpo.training.validation import look, marginal, signs

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def view(make_task: Make, train: Make) -> Any:
    task = make_task([8, 8])
    noise = {"kind": "fixed", "epsilon": 0.1}
    trained = train(task, task, 2, epochs=4, noise=noise, symmetry={"kind": "noise", "scale": 0.1})
    mixture = Mixture(trained.experts, trained.weighting, trained.likelihood)
    seen = look(mixture, task.pairs, 4096, torch.device("cpu"), torch.float32)
    return seen, task.pairs.annotators, trained


def test_it_is_what_the_trainer_reports(view: Any) -> None:
    seen, groups, trained = view
    assert marginal(seen, groups) == pytest.approx(trained.result.history[-1]["validation_marginal"])
    total = annotator_log_likelihood(seen.logits, seen.log_weights, groups).sum().item()
    assert marginal(seen, groups) == pytest.approx(total / len(groups))


def test_the_order_of_batches_leaves_no_trace(view: Any, make_task: Make) -> None:
    """Rows come back in the order of the pairs, though the longest run first."""
    seen, _, trained = view
    mixture = Mixture(trained.experts, trained.weighting, trained.likelihood)
    pairs = make_task([8, 8]).pairs
    shuffled = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
    other = type(pairs)(
        [pairs.ids[place] for place in shuffled],
        [pairs.chosen[place] for place in shuffled],
        [pairs.rejected[place] for place in shuffled],
        pairs.annotators[shuffled],
        pairs.chosen_reference[shuffled],
        pairs.rejected_reference[shuffled],
        pairs.features[shuffled],
    )
    again = look(mixture, other, 4096, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(again.logits, seen.logits[shuffled], atol=1e-5, rtol=1e-5)


def test_logits_have_the_label_noise_in_them(view: Any) -> None:
    seen, _, _ = view
    assert torch.sigmoid(seen.logits).max() <= 0.9 + 1e-6
    assert torch.sigmoid(seen.logits).min() >= 0.1 - 1e-6


def test_knowing_an_annotator_predicts_by_their_other_pairs_alone(view: Any) -> None:
    seen, groups, _ = view
    found = signs(seen, groups)
    known = []
    for place in range(len(groups)):
        others = [row for row in range(len(groups)) if groups[row] == groups[place] and row != place]
        joint = seen.log_weights[place] + F.logsigmoid(seen.logits[others]).sum(dim=0)
        known.append(torch.logsumexp(joint.log_softmax(dim=-1) + F.logsigmoid(seen.logits[place]), dim=-1).item())
    assert found.known == pytest.approx(sum(known) / len(known), abs=1e-5)
    assert found.known > found.stranger + 0.05
    torch.testing.assert_close(found.prior, torch.full_like(found.prior, 0.5))


def test_with_a_latent_for_each_pair_nobody_is_known(view: Any) -> None:
    seen, _, _ = view
    found = signs(seen, None)
    assert found.known == found.stranger
    torch.testing.assert_close(found.prior, seen.log_weights.exp())
