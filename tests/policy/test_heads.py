from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mixdpo.policy.heads import LinearHeads, LowRankHeads

V, D, K, R = 7, 4, 3, 2


def started(kind: str, bias: bool, seed: int = 0) -> LinearHeads | LowRankHeads:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(V, D, generator=generator)
    offset = torch.randn(V, generator=generator) if bias else None
    if kind == "linear":
        return LinearHeads.copies(weight, offset, K)
    return LowRankHeads.around(weight, offset, K, R, torch.Generator().manual_seed(seed))


hidden = torch.randn(5, D, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["linear", "lowrank"])
def test_all_experts_start_at_the_head_they_come_from(kind: str, bias: bool) -> None:
    heads = started(kind, bias)
    weight, offset = started("linear", bias).dense(0)
    torch.testing.assert_close(heads(hidden), F.linear(hidden, weight, offset)[:, None].expand(-1, K, -1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["linear", "lowrank"])
def test_together_alone_and_dense_are_the_same_logits(kind: str, bias: bool) -> None:
    heads = started(kind, bias)
    heads.perturb(0.5, torch.Generator().manual_seed(3))
    together = heads(hidden)
    assert together.shape == (5, K, V)
    for expert in range(K):
        torch.testing.assert_close(heads.one(hidden, expert), together[:, expert])
        weight, offset = heads.dense(expert)
        torch.testing.assert_close(F.linear(hidden, weight, offset), together[:, expert])


@pytest.mark.parametrize("kind", ["linear", "lowrank"])
def test_noise_parts_every_two_experts_and_comes_from_its_seed(kind: str) -> None:
    heads, again = started(kind, False), started(kind, False)
    heads.perturb(0.5, torch.Generator().manual_seed(3))
    again.perturb(0.5, torch.Generator().manual_seed(3))
    assert torch.equal(heads(hidden), again(hidden))
    logits = heads(hidden)
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert (logits[:, one] - logits[:, other]).abs().max() > 0.01


def test_low_rank_experts_start_equal_but_learn_apart() -> None:
    heads = started("lowrank", False)
    heads(hidden).pow(2).sum().backward()
    gradient = heads.up.grad
    assert gradient is not None
    assert (gradient[0] - gradient[1]).abs().max() > 0.01


def test_the_shared_head_of_low_rank_experts_is_neither_trained_nor_saved_with_each() -> None:
    heads = started("lowrank", True)
    assert sorted(name for name, _ in heads.named_parameters()) == ["down", "up"]
    assert sorted(heads.state_dict()) == ["down", "up"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["linear", "lowrank"])
def test_selected_heads_give_the_logits_of_the_experts_they_name_and_are_their_own(kind: str, bias: bool) -> None:
    heads = started(kind, bias)
    heads.perturb(0.5, torch.Generator().manual_seed(3))
    before = heads(hidden).detach()
    chosen = heads.select([2, 0, 0])
    assert torch.equal(chosen(hidden), before[:, [2, 0, 0]])
    chosen.perturb(0.5, torch.Generator().manual_seed(4))
    assert torch.equal(heads(hidden), before)
    assert (chosen(hidden)[:, 1] - chosen(hidden)[:, 2]).abs().max() > 0.01


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["linear", "lowrank"])
def test_a_copied_head_is_equal_to_its_source_and_the_others_stay(kind: str, bias: bool) -> None:
    heads = started(kind, bias)
    heads.perturb(0.5, torch.Generator().manual_seed(3))
    before = heads(hidden).detach()
    heads.copy_expert(0, 2)
    assert torch.equal(heads(hidden), before[:, [0, 1, 0]])
    assert all(parameter.requires_grad for parameter in heads.parameters())
