from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixdpo.objective import responsibilities
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.weighting import PriorWeights
from mixdpo.training import Mixture, Setup, growth, trainer
from mixdpo.training.run import Run
from mixdpo.training.validation import look

Make = Callable[..., Any]
GROWTH = {"most": 4, "steps": 32, "gain": 0.02, "prune": 0.05}
TRAINABLE = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}
LOWRANK = {"kind": "shared", "head": "lowrank", "rank": 4, "trunk": "frozen"}
GATE = {"kind": "gate", "hidden": 0, "entropy": 0.01, "rest_steps": 4, "learning_rate": 1e-2}
GLOBAL = {"kind": "global", "alpha": 1.5, "smoothing": 0.8}


def found_groups(trained: Any, task: Any) -> float:
    """Share of pairs whose expert is its style, under the best naming of experts."""
    mixture = Mixture(trained.experts, trained.weighting, trained.likelihood)
    view = look(mixture, task.pairs, 4096, torch.device("cpu"), torch.float32)
    found = responsibilities(view.logits, view.log_weights, task.pairs.annotators).argmax(dim=-1)
    names = itertools.permutations(range(trained.experts.experts))
    return max((torch.tensor(name)[found] == task.styles).float().mean().item() for name in names)


@pytest.mark.parametrize("seed", range(3))
def test_three_styles_make_three_experts_of_one(seed: int, make_task: Make, train: Make) -> None:
    task, held_out = make_task([10] * 3, seed=0), make_task([8] * 3, seed=1)
    trained = train(task, held_out, 1, seed=seed, epochs=2, growth=GROWTH)
    assert trained.experts.experts == 3
    assert found_groups(trained, held_out) >= 0.9
    assert trained.result.findings == []
    kept = [row for row in trained.result.growth if row["kept"]]
    assert [row["experts"] for row in kept[:3]] == [1, 2, 3]
    curve = [row["validation_marginal"] for row in kept]
    assert curve == sorted(curve)
    assert curve[-1] > curve[0] + 0.2
    # four were tried, twice, and not taken
    assert [row["kept"] for row in trained.result.growth if row["experts"] == 4] == [0, 0]
    history = trained.result.history
    assert [row["step"] for row in history] == list(range(1, len(history) + 1))
    assert {row["experts"] for row in history} == {1, 2, 3}
    assert history[-1]["validation_marginal"] == curve[-1]


def test_annotators_of_one_mind_need_one_expert(make_task: Make, train: Make) -> None:
    """Even where training was too short: more steps are not taken for more experts."""
    task, held_out = make_task([20, 0], seed=0), make_task([10, 0], seed=1)
    trained = train(task, held_out, 1, epochs=1, growth=GROWTH)
    assert trained.experts.experts == 1
    start, on, split = trained.result.growth
    assert [row["kept"] for row in (start, on, split)] == [1, 1, 0]
    assert split["validation_marginal"] > start["validation_marginal"] + GROWTH["gain"]
    assert trained.result.history[-1]["validation_marginal"] == on["validation_marginal"]


@pytest.mark.parametrize(
    ("architecture", "weights"),
    [(TRAINABLE, GATE), (LOWRANK, GLOBAL), ({"kind": "independent"}, GATE)],
    ids=["trainable-gate", "lowrank-global", "independent-gate"],
)
def test_every_architecture_and_learned_weights_grow(
    architecture: dict[str, Any], weights: dict[str, Any], make_task: Make, train: Make
) -> None:
    task, held_out = make_task([10, 10], seed=0), make_task([8, 8], seed=1)
    few = GROWTH | {"most": 2, "steps": 16}
    trained = train(task, held_out, 1, epochs=1, architecture=architecture, weights=weights, growth=few)
    assert trained.experts.experts == 2
    assert found_groups(trained, held_out) >= 0.9
    features = trained.weighting.encode(held_out.context) if trained.weighting.needs_features else None
    log_weights = trained.weighting(features, len(held_out.pairs))
    assert log_weights.shape == (len(held_out.pairs), 2)


def test_pairs_without_annotators_can_be_what_is_split(make_task: Make, train: Make) -> None:
    task, held_out = make_task([10, 10], seed=0), make_task([8, 8], seed=1)
    never = GROWTH | {"most": 3, "gain": 5.0, "steps": 4}
    trained = train(task, held_out, 1, epochs=1, latent="pair", growth=never)
    assert trained.experts.experts == 1
    assert len(trained.result.growth) == 3


def test_a_split_is_the_same_policy_until_it_is_trained(make_task: Make, train: Make) -> None:
    task = make_task([6, 6])
    trained = train(task, task, 2, weights=GLOBAL, symmetry={"kind": "noise", "scale": 0.5})
    mixture = Mixture(trained.experts, trained.weighting, trained.likelihood)
    before = copy.deepcopy(mixture.state_dict())
    split = growth._branch(mixture, [0, 1, 0])
    views = [look(each, task.pairs, 4096, torch.device("cpu"), torch.float32) for each in (mixture, split)]
    mass = [torch.logsumexp(view.log_weights + view.logits, dim=-1) for view in views]
    torch.testing.assert_close(mass[1], mass[0])
    torch.testing.assert_close(split.weighting.log_weights.exp()[[0, 2]].sum(), mixture.weighting.log_weights[0].exp())
    # what is trained later is not shared
    with torch.no_grad():
        for parameter in split.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    for name, tensor in mixture.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_pruning_leaves_the_log_probs_of_the_others(
    make_task: Make, train: Make, make_policy: Make, make_settings: Make
) -> None:
    """Two styles, three experts, of which one explains nothing."""
    task, held_out = make_task([12, 12], seed=0), make_task([8, 8], seed=1)
    two = train(task, held_out, 2, epochs=6, weights=GLOBAL)
    experts = two.experts.select([0, 1, 1])
    with torch.no_grad():
        experts.heads.weight[1] = 0.0
    weighting = PriorWeights(torch.tensor([0.49, 0.02, 0.49]).log())
    policy = make_policy(3, growth=GROWTH)
    settings = make_settings()
    mixture = Mixture(experts, weighting, Likelihood.of(policy, settings))
    wanted = look(mixture, held_out.pairs, 4096, torch.device("cpu"), torch.float32).logits[:, [0, 2]]
    run = growth._Growth(task.pairs, held_out.pairs, Setup(settings, policy, 0, torch.device("cpu")), None)
    run.mixture, run.result = mixture, trainer.TrainingResult([{"step": 1}], [])
    run.prune()
    assert run.size == 2
    view = look(run.mixture, held_out.pairs, 4096, torch.device("cpu"), torch.float32)
    assert torch.equal(view.logits, wanted)
    torch.testing.assert_close(view.log_weights.exp(), torch.full((len(held_out.pairs), 2), 0.5))
    assert run.result.history[-1]["experts"] == 2
    run.prune()
    assert run.size == 2
    assert len(run.result.growth) == 1


class Killed(BaseException):
    """What no handler in the program catches."""


@pytest.mark.parametrize("die_at", [45])
def test_a_killed_growth_goes_on_to_the_same_end_bit_for_bit(
    die_at: int, make_task: Make, train: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, held_out = make_task([6, 6], seed=0), make_task([4, 4], seed=1)
    options = {
        "epochs": 3,
        "batch_pairs": 16,
        "weights": GLOBAL,
        "checkpoint_every": 4,
        "architecture": TRAINABLE,
        "growth": GROWTH | {"most": 3, "steps": 12, "gain": 0.01},
    }
    step, taken = Run.step, []

    def counting(run: Run, number: int) -> Any:
        taken.append(number)
        if len(taken) == dies:
            raise Killed
        return step(run, number)

    monkeypatch.setattr(Run, "step", counting)
    dies = 0
    whole = train(task, held_out, 1, **options)
    steps = len(taken)
    taken.clear()
    dies = die_at
    with pytest.raises(Killed):
        train(task, held_out, 1, checkpoint=tmp_path / "work", **options)
    taken.clear()
    dies = 0
    resumed = train(task, held_out, 1, checkpoint=tmp_path / "work", **options)
    # but for the steps since the last checkpoint no work is repeated
    assert len(taken) <= steps - (die_at - 1) + 3
    assert resumed.result.history == whole.result.history
    assert resumed.result.growth == whole.result.growth
    assert resumed.result.findings == whole.result.findings
    for part, wanted in ((resumed.experts, whole.experts), (resumed.weighting, whole.weighting)):
        for name, tensor in part.state_dict().items():
            assert torch.equal(tensor, wanted.state_dict()[name]), name
