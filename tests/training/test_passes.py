"""A step in pieces, with layers run twice, or of likely experts alone first, is the step, whatever options are on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.loading import new_experts
from mixdpo.policy.tokens import TokenBatch
from mixdpo.training.fit import Fit, Way
from mixdpo.training.passes import Passes

Make = Callable[..., Any]
CPU = torch.device("cpu")
TRAINABLE = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}
LOWRANK = {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "frozen"}
LORA = {"rank": 2, "alpha": 4.0, "targets": None}
INDEPENDENT = {"kind": "independent"}
NOISE = {"kind": "noise", "scale": 0.1}
GATE = {"kind": "gate", "hidden": 4, "entropy": 0.01, "rest_steps": 0, "learning_rate": 1e-2}
GUMBEL = {"straight_through": False, "start": 2.0, "floor": 0.5, "steps": 4, "shape": "linear"}
OPTIONS: dict[str, dict[str, Any]] = {
    "annotator": {},
    "pair": {"latent": "pair"},
    "frozen trunk": {"architecture": LOWRANK},
    "adapters": {"architecture": TRAINABLE | {"trunk": "lora", "lora": LORA}},
    "independent": {"architecture": INDEPENDENT},
    "independent adapters": {"architecture": INDEPENDENT | {"lora": LORA}},
    "frozen expert": {"architecture": INDEPENDENT, "frozen": (1,)},
    "gate and balance": {"weights": GATE | {"balance": {"strength": 0.5, "steps": 9}}},
    "global weights": {"weights": {"kind": "global", "alpha": 1.5, "smoothing": 0.5}},
    "top": {"sparsity": {"top": 2, "by": "responsibilities"}},
    "top of independent": {"sparsity": {"top": 1, "by": "responsibilities"}, "architecture": INDEPENDENT},
    "drawn": {"relaxation": GUMBEL, "latent": "pair"},
    "straight-through": {"relaxation": GUMBEL | {"straight_through": True}, "architecture": INDEPENDENT},
    "noise": {"noise": {"kind": "learned", "epsilon": 0.1, "smoothing": 0.5}},
    "smoothed": {"noise": {"kind": "smoothed", "epsilon": 0.1}},
    "nll": {"nll": 0.5},
    "a token": {"margins": "token", "betas": (0.5, 1.0, 2.0)},
    "partition": {"symmetry": {"kind": "partition", "steps": 2}, "architecture": INDEPENDENT},
    "reseed": {"reseed": {"usage": 0.4, "patience": 1, "steps": 2}},
}


@pytest.fixture(scope="module")
def task(make_task: Make) -> Any:
    return make_task([2, 2, 2], each=4)


@pytest.mark.parametrize(
    ("options", "recompute"),
    [*((options, True) for options in OPTIONS.values()), ({}, False), ({"architecture": INDEPENDENT}, False)],
    ids=[*OPTIONS, "kept", "independent kept"],
)
def test_a_run_in_pieces_is_the_run(
    options: dict[str, Any], recompute: bool, task: Any, train: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"architecture": TRAINABLE, "symmetry": NOISE, "batch_pairs": 14, "learning_rate": 1e-3} | options
    whole = train(task, task, 3, **options)

    def in_fours(_: Fit, places: list[int], **__: int) -> Way:
        return Way([part.tolist() for part in torch.arange(len(places)).split(4)], recompute)

    monkeypatch.setattr(Fit, "way", in_fours)
    cut = train(task, task, 3, **options)
    for one, other in zip(cut.result.history, whole.result.history, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    wanted = whole.experts.state_dict()
    for name, tensor in cut.experts.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-5)


def test_whole_models_run_again_for_the_pairs_that_they_turn_out_to_have(
    task: Any, new_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = new_experts(new_model(), 3, INDEPENDENT, torch.Generator())
    runs: list[tuple[int, bool]] = []
    forward = SharedTrunk.forward

    def watched(model: SharedTrunk, batch: TokenBatch, *args: Any) -> torch.Tensor:
        runs.append((batch.rows // 2, torch.is_grad_enabled()))
        return forward(model, batch, *args)

    monkeypatch.setattr(SharedTrunk, "forward", watched)
    passes = Passes(experts, task.pairs, Fit(experts, task.pairs, CPU), 4096, CPU)
    places = list(range(6))
    # the first expert gets the two pairs that it was expected to get, the second one that nobody expected
    likely = torch.zeros(6, 3, dtype=torch.bool)
    likely[:2, 0] = True
    gradient = torch.zeros(12, 3)
    gradient[[0, 1, 6, 7], 0] = torch.tensor([1.0, 2.0, -1.0, -2.0])
    gradient[[5, 11], 1] = torch.tensor([3.0, -3.0])
    logps = passes.forward(places, likely)
    assert runs == [(2, True), (4, False), (6, False), (6, False)]
    passes.backward(gradient)
    assert runs[4:] == [(1, True)]
    found = [parameter.grad for parameter in experts.parameters()]
    experts.zero_grad(set_to_none=True)
    whole = passes.forward(places)
    passes.backward(gradient)
    torch.testing.assert_close(logps, whole)
    for one, parameter in zip(found, experts.parameters(), strict=True):
        assert (one is None) == (parameter.grad is None)
        if one is not None:
            torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-5)
