from __future__ import annotations

import torch

from mixdpo.policy.token_logps import token_logps


def example(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(shape[-1], shape[:-1], generator=generator)


def test_value_and_gradient_are_those_of_autograd() -> None:
    logits, target = example(4, 3, 11)
    ours, theirs = token_logps(logits, target), logits.log_softmax(dim=-1).gather(-1, target[..., None]).squeeze(-1)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    (found,) = torch.autograd.grad(ours, logits, weights)
    (wanted,) = torch.autograd.grad(theirs, logits, weights)
    torch.testing.assert_close(found, wanted)


def test_the_gradient_is_the_finite_difference() -> None:
    logits, target = example(3, 2, 5)
    assert torch.autograd.gradcheck(lambda logits: token_logps(logits, target), logits)


def test_the_backward_pass_leaves_the_logits_as_they_were() -> None:
    logits, target = example(3, 5)
    before = logits.detach().clone()
    result = token_logps(logits, target).sum()
    (first,) = torch.autograd.grad(result, logits, retain_graph=True)
    (second,) = torch.autograd.grad(result, logits)
    assert torch.equal(logits.detach(), before)
    assert torch.equal(first, second)


def test_a_target_of_probability_zero_is_minus_infinity_and_huge_logits_are_finite() -> None:
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]])
    assert token_logps(logits, torch.tensor([0, 1])).tolist() == [0.0, -2e4]
