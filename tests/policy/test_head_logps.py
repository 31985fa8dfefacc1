"""Blocks of the vocabulary give what whole logits give: values and gradients, whatever is kept, skipped or frozen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mixdpo.policy import head_blocks
from mixdpo.policy.head_logps import linear_logps, low_rank_logps
from mixdpo.policy.heads import Heads, LinearHeads, LowRankHeads

C, D, V, R = 23, 6, 41, 2
close = torch.testing.assert_close
each_kind = pytest.mark.parametrize("kind", ["linear", "lowrank"])


@pytest.fixture(params=[1, 7, 1 << 20], ids=["narrow", "uneven", "one"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of so many columns."""
    monkeypatch.setattr(head_blocks, "NARROWEST", request.param)
    monkeypatch.setattr(head_blocks, "CPU_BLOCK", 1)


def heads_of(kind: str, experts: int, bias: bool, dtype: torch.dtype = torch.float64) -> Heads:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(experts, V, D, generator=generator)
    offset = torch.randn(experts, V, generator=generator) if bias else None
    if kind == "linear":
        return LinearHeads(weight, offset).to(dtype)
    down, up = torch.randn(experts, R, D, generator=generator), torch.randn(experts, V, R, generator=generator)
    return LowRankHeads(weight[0], None if offset is None else offset[0], down, up).to(dtype)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(C, D, generator=generator).to(dtype), torch.randint(V, (C,), generator=generator)


def plain(heads: Heads, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    logits = heads(hidden)
    index = target[:, None, None].expand(-1, heads.experts, 1)
    return logits.log_softmax(dim=-1).gather(-1, index).squeeze(-1)


def gradients(logps: torch.Tensor, heads: Heads, hidden: torch.Tensor, scale: torch.Tensor) -> list[torch.Tensor]:
    wanted = [*heads.parameters(), *([hidden] if hidden.requires_grad else [])]
    return list(torch.autograd.grad((scale.to(logps.dtype) * logps).sum(), wanted))


@pytest.mark.usefixtures("blocks")
@each_kind
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("kept", [0, 3000, 1 << 20], ids=["recomputed", "some kept", "kept"])
@pytest.mark.parametrize("trunk", ["frozen", "trainable"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_whole_logits(
    kind: str, bias: bool, experts: int, kept: int, trunk: str, dtype: torch.dtype
) -> None:
    heads = heads_of(kind, experts, bias, dtype)
    hidden, target = inputs(dtype)
    hidden.requires_grad_(trunk == "trainable")
    # some tokens have no gradient under some experts, one expert has none at all
    scale = torch.randn(C, experts, generator=torch.Generator().manual_seed(2))
    scale[::3, 0] = 0.0
    scale[:, 1:2] = 0.0
    ours, theirs = heads.logps(hidden, target, kept), plain(heads, hidden, target)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    close(ours, theirs, **tolerance)
    found, wanted = (gradients(each, heads, hidden, scale) for each in (ours, theirs))
    for one, other in zip(found, wanted, strict=True):
        close(one, other, **tolerance)


@each_kind
def test_the_gradient_is_the_finite_difference(kind: str) -> None:
    heads = heads_of(kind, 2, True)
    hidden, target = (each[:4] for each in inputs())
    inner = hidden @ heads.down.mT if isinstance(heads, LowRankHeads) else None

    def logps(hidden: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        if isinstance(heads, LowRankHeads):
            return low_rank_logps(hidden, target, heads.base, heads.base_bias, *others)
        return linear_logps(hidden, target, *others)

    others = (heads.weight, heads.bias) if inner is None else (inner.detach().requires_grad_(), heads.up)
    # kept powers are used once: a second backward pass computes them again, and may round otherwise
    assert torch.autograd.gradcheck(logps, (hidden.requires_grad_(), *others), nondet_tol=1e-9)


@each_kind
def test_a_sure_token_has_a_log_prob_of_zero_and_an_impossible_one_is_finite(kind: str) -> None:
    heads = heads_of(kind, 2, False, torch.float32)
    hidden, _ = inputs(torch.float32)
    logits = heads(hidden * 1000.0)[:, 0]
    sure, impossible = (heads.logps(hidden * 1000.0, each)[:, 0] for each in (logits.argmax(-1), logits.argmin(-1)))
    assert (sure <= 0).all()
    assert (sure > -1.0).float().mean() > 0.8
    assert torch.isfinite(impossible).all()
    assert (impossible < -200).all()


@each_kind
@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_under_autocast_products_are_bfloat16_and_log_probs_are_near(kind: str, kept: int) -> None:
    heads = heads_of(kind, 3, True, torch.float32)
    hidden, target = inputs(torch.float32)
    hidden.requires_grad_()
    scale = torch.randn(C, 3, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        ours = heads.logps(hidden, target, kept)
    assert ours.dtype == torch.float32
    theirs = plain(heads, hidden, target)
    close(ours, theirs, rtol=0.02, atol=0.1)
    found, wanted = (gradients(each, heads, hidden, scale) for each in (ours, theirs))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.03 * other.norm()


@each_kind
@pytest.mark.parametrize("kept", [0, 1 << 16])
def test_no_tensor_is_of_tokens_by_vocabulary(kind: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_blocks, "CPU_BLOCK", 1)
    vocabulary, tokens = 8192, 64
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(vocabulary, D, generator=generator)
    heads: Heads = LinearHeads.copies(weight, None, 4)
    if kind == "lowrank":
        heads = LowRankHeads.around(weight, None, 4, R, generator)
    hidden = torch.randn(tokens, D, generator=generator, requires_grad=True)
    largest = largest_tensor(lambda: heads.logps(hidden, torch.arange(tokens), kept).sum().backward())
    of_a_block, of_a_gradient = 4 * tokens * head_blocks.NARROWEST, 4 * max(p.numel() for p in heads.parameters())
    assert of_a_block <= largest <= max(of_a_block, of_a_gradient) < 4 * tokens * vocabulary


def largest_tensor(run: Callable[[], object]) -> int:
    """Bytes of the largest allocation that torch made."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    return max(event.self_cpu_memory_usage for event in profile.events())
