from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mixdpo.objective import implicit_rewards, preference_margins


def logps(*shape: int) -> torch.Tensor:
    return -10 * torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def test_a_policy_at_its_reference_has_no_margin_and_a_loss_of_ln_2() -> None:
    chosen, rejected = logps(5, 1).expand(-1, 3), logps(5).add(1)[:, None].expand(-1, 3)
    margins = preference_margins(chosen, rejected, chosen[:, 0], rejected[:, 0], beta=0.7)
    assert margins.abs().max() == 0
    assert -F.logsigmoid(margins).mean().item() == pytest.approx(math.log(2), abs=1e-12)


def test_swapping_chosen_and_rejected_negates_the_margin() -> None:
    chosen, rejected, reference = logps(5, 2), logps(5, 2) - 1, logps(5)
    there = preference_margins(chosen, rejected, reference, reference - 2, beta=0.1)
    back = preference_margins(rejected, chosen, reference - 2, reference, beta=0.1)
    torch.testing.assert_close(there, -back)


def test_the_margin_is_in_proportion_to_beta_and_blind_to_the_partition_term() -> None:
    chosen, rejected, reference = logps(5, 2), logps(5, 2) - 1, logps(5)
    margins = preference_margins(chosen, rejected, reference, reference, beta=0.1)
    torch.testing.assert_close(preference_margins(chosen, rejected, reference, reference, beta=0.3), 3 * margins)
    # a number for each prompt, added to both completions' rewards, cancels
    torch.testing.assert_close(preference_margins(chosen, rejected, reference + 5, reference + 5, beta=0.1), margins)


def test_one_reference_for_all_experts_equals_the_same_one_for_each() -> None:
    policy, reference = logps(5, 3), logps(5)
    each = implicit_rewards(policy, reference[:, None].expand(-1, 3), beta=0.2)
    torch.testing.assert_close(implicit_rewards(policy, reference, beta=0.2), each)


def test_each_expert_has_its_own_beta_where_it_is_given_one() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected, one, other = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(4))
    betas = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    margins = preference_margins(chosen, rejected, one, other, betas)
    for expert, beta in enumerate(betas.tolist()):
        alone = preference_margins(*(x[:, expert : expert + 1] for x in (chosen, rejected, one, other)), beta)
        torch.testing.assert_close(margins[:, expert : expert + 1], alone)


def test_a_tokens_margin_does_not_grow_with_length() -> None:
    """The same log-ratio a token in a completion twice as long gives the same margin, not twice."""
    ratio = torch.tensor([[0.2, -0.1]], dtype=torch.float64)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    for tokens in (10, 20):
        lengths = (torch.tensor([tokens]), torch.tensor([7]))
        margins = preference_margins(tokens * ratio, zero, zero, zero, 0.5, lengths)
        torch.testing.assert_close(margins, 0.5 * ratio)
