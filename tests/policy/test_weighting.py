from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load, save

from mixdpo.config.weights import Weights
from mixdpo.errors import ConfigError, DataError, ModelError
from mixdpo.policy.context import Context
from mixdpo.policy.gate_inputs import GateInputs
from mixdpo.policy.weighting import Gate, PriorWeights, Weighting, new_weighting, weighting_from_description

close = torch.testing.assert_close
ROWS, EXPERTS = 40, 3
TEXTS = [f"prompt {row}" for row in range(ROWS)]
FEATURES = torch.randn((ROWS, 4), generator=torch.Generator().manual_seed(0)) * 3 + 100
CONTEXT = Context(
    TEXTS,
    lambda: FEATURES,
    [f"person {row % 5}" for row in range(ROWS)],
    {"domain": ["film", "book", "song", None] * (ROWS // 4), "age": list(range(ROWS))},
)
GATE = {"kind": "gate", "hidden": 0, "entropy": 0.0, "rest_steps": 0, "learning_rate": 0.1}
PEOPLE = {"annotators": {"width": 3, "unknown": 0.1}}
KINDS: dict[str, dict[str, Any]] = {
    "uniform": {"kind": "fixed", "values": None},
    "given": {"kind": "fixed", "values": [1, 2, 5]},
    "global": {"kind": "global", "alpha": 1.0, "smoothing": 0.9},
    "linear gate": GATE,
    "hidden gate": GATE | {"hidden": 5},
    "annotator gate": GATE | PEOPLE | {"prompt": False},
    "full gate": GATE | PEOPLE | {"hidden": 5, "metadata": ["domain", "age"], "floor": 0.3},
    "random": {"kind": "random", "confidence": 0.9},
    "domain": {"kind": "domain", "experts": {"film": 2, "book": 0}, "confidence": 0.8},
}
LEARNS = ["global", "linear gate", "hidden gate", "annotator gate", "full gate"]


def section(kind: str, **changes: Any) -> Any:
    return TypeAdapter(Weights).validate_python(KINDS[kind] | changes)


def new(kind: str, seed: int = 0, **changes: Any) -> Weighting:
    return new_weighting(section(kind, **changes), EXPERTS, CONTEXT, torch.Generator().manual_seed(seed))


def trained(kind: str, **changes: Any) -> Weighting:
    """As after some training: every parameter has moved."""
    weighting = new(kind, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in weighting.parameters():
            part.add_(torch.randn(part.shape, generator=generator))
    return weighting


def log_weights(weighting: Weighting, context: Context = CONTEXT) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = weighting(weighting.encode(context), len(context))
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_normalised_and_finite(kind: str) -> None:
    found = log_weights(trained(kind))
    assert found.shape == (ROWS, EXPERTS)
    assert torch.isfinite(found).all()
    close(found.exp().sum(dim=-1), torch.ones(ROWS))


@pytest.mark.parametrize("kind", LEARNS)
def test_what_learns_starts_uniform(kind: str) -> None:
    close(log_weights(new(kind)).exp(), torch.full((ROWS, EXPERTS), 1 / EXPERTS))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_loads_to_the_same_weights(kind: str) -> None:
    weighting = trained(kind)
    about = json.loads(json.dumps(weighting.describe(), allow_nan=False))
    loaded = weighting_from_description(about, EXPERTS, load(save(weighting.state_dict())))
    close(log_weights(loaded), log_weights(weighting), rtol=0, atol=0)
    for name in ("needs_features", "sees_prompts", "annotators", "columns"):
        assert getattr(loaded, name) == getattr(weighting, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_weighed_by_itself(kind: str) -> None:
    weighting = trained(kind)
    rows = [3, 17]
    some = Context(
        [TEXTS[row] for row in rows],
        lambda: FEATURES[rows],
        [(CONTEXT.annotators or ())[row] for row in rows],
        {name: [values[row] for row in rows] for name, values in CONTEXT.metadata.items()},
    )
    close(log_weights(weighting, some), log_weights(weighting)[rows])


@pytest.mark.parametrize("kind", ["hidden gate", "annotator gate"])
def test_a_gate_comes_from_its_seed_alone(kind: str) -> None:
    torch.manual_seed(5)
    first = new(kind)
    torch.manual_seed(6)
    for one, same, other in zip(first.parameters(), new(kind).parameters(), new(kind, 1).parameters(), strict=True):
        assert torch.equal(one, same)
        assert not one.any() or one.shape[-1] == 1 or not torch.equal(one, other)


def test_the_unit_of_the_prompt_features_does_not_matter() -> None:
    features = torch.tensor([[100.0, -1.0, 0.0], [102.0, -3.0, 0.0], [101.0, 1.0, 0.0]])
    weights = []
    for scale in (1.0, 1000.0):
        gate = Gate(GateInputs(3), 2, 0)
        gate.standardise(scale * features)
        with torch.no_grad():
            gate.layers[-1].weight.copy_(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
        weights.append(gate(scale * features, 3))
    close(*weights)
    assert (weights[0][0] - weights[0][1]).abs().max() > 0.01
    assert torch.isfinite(weights[0]).all()  # though one feature never varies


def test_whoever_the_gate_has_not_met_is_a_stranger() -> None:
    weighting = trained("full gate")
    strangers = log_weights(weighting, Context(TEXTS, lambda: FEATURES, None, CONTEXT.metadata))
    for people in ([None] * ROWS, ["nobody"] * ROWS, ["", "PERSON 1"] * (ROWS // 2)):
        close(log_weights(weighting, Context(TEXTS, lambda: FEATURES, people, CONTEXT.metadata)), strangers)
    assert ((log_weights(weighting) - strangers).abs().amax(dim=-1) > 1e-3).all()


def test_a_new_stranger_is_nobody_in_particular() -> None:
    weighting = new("annotator gate")
    assert isinstance(weighting, Gate)
    assert weighting.embedding is not None
    assert not weighting.embedding.weight[0].any()
    assert weighting.embedding.weight[1:].any(dim=-1).all()


@pytest.mark.parametrize("kind", ["linear gate", "hidden gate", "full gate"])
def test_permuting_the_experts_of_a_gate_permutes_the_weights(kind: str) -> None:
    weighting, order = trained(kind), [2, 0, 1]
    wanted = log_weights(weighting)[:, order]
    assert isinstance(weighting, Gate)
    with torch.no_grad():
        for part in weighting.layers[-1].parameters():
            part.copy_(part[order].clone())
    close(log_weights(weighting), wanted)


@pytest.mark.parametrize("floor", [0.0, 0.3, 0.999])
def test_a_floor_bounds_the_least_weight(floor: float) -> None:
    weighting = trained("linear gate", floor=floor)
    assert isinstance(weighting, Gate)
    free = log_weights(trained("linear gate")).exp()
    close(log_weights(weighting).exp(), floor / EXPERTS + (1 - floor) * free)
    with torch.no_grad():
        weighting.layers[-1].bias.copy_(torch.tensor([1e4, 0.0, -1e4]))
    found = weighting(FEATURES, ROWS)
    assert (found.exp() >= floor / EXPERTS - 1e-6).all()
    found.sum().backward()
    assert all(torch.isfinite(part.grad).all() for part in weighting.parameters() if part.grad is not None)


def test_all_of_a_gate_learns_unless_it_is_frozen() -> None:
    for frozen in (False, True):
        weighting = trained("full gate", frozen=frozen)
        assert {part.requires_grad for part in weighting.parameters()} == {not frozen}
    target = torch.full((ROWS,), 1)
    weighting = trained("full gate")
    loss = torch.nn.functional.nll_loss(weighting(weighting.encode(CONTEXT), ROWS), target)
    loss.backward()
    assert all(part.grad is not None and part.grad.any() for part in weighting.parameters())


def test_random_weights_depend_on_the_text_alone() -> None:
    weighting = new("random")
    found = log_weights(weighting)
    other = Context(TEXTS[::-1], lambda: FEATURES, ["x"] * ROWS, {"domain": ["film"] * ROWS})
    close(log_weights(weighting, other), found.flip(0), rtol=0, atol=0)
    close(found.exp().max(dim=-1).values, torch.full((ROWS,), 0.9))
    assert set(found.argmax(dim=-1).tolist()) == {0, 1, 2}
    many = Context([f"text {row}" for row in range(3000)], lambda: FEATURES)
    close(log_weights(weighting, many).exp().mean(dim=0), torch.full((3,), 1 / 3), rtol=0, atol=0.03)


def test_one_expert_takes_all_even_by_a_heuristic() -> None:
    weighting = new_weighting(section("random"), 1, CONTEXT, torch.Generator())
    close(log_weights(weighting), torch.zeros(ROWS, 1))


def test_domain_weights_follow_the_table_and_are_uniform_elsewhere() -> None:
    found = log_weights(new("domain")).exp()[:4]
    close(found, torch.tensor([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [1 / 3] * 3, [1 / 3] * 3]))
    nowhere = Context(TEXTS, lambda: FEATURES)
    close(log_weights(new("domain"), nowhere).exp(), torch.full((ROWS, 3), 1 / 3))


def test_domains_that_no_pair_has_are_refused() -> None:
    with pytest.raises(
        DataError, match="lists the domains opera, but the training pairs are of book, film, song; list"
    ):
        new("domain", experts={"opera": 1})
    with pytest.raises(
        DataError, match="but the training pairs name no domain; list their domains, or name the domain"
    ):
        new_weighting(section("domain"), EXPERTS, Context(TEXTS, lambda: FEATURES), torch.Generator())


@pytest.mark.parametrize("kind", ["uniform", "linear gate", "random", "domain"])
def test_naming_annotators_where_nothing_depends_on_them_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="weights do not depend on the annotator; leave `annotators` out, or use"):
        new(kind).refuse_unseen(Context(TEXTS, lambda: FEATURES, ["ann"] * ROWS))


def test_naming_metadata_where_nothing_depends_on_it_is_refused() -> None:
    rows = Context(TEXTS, lambda: FEATURES, None, {"domian": [None] * ROWS, "age": [1] * ROWS})
    with pytest.raises(ConfigError, match="weights depend only on domain, age, not on domian; leave that out of"):
        new("full gate").refuse_unseen(rows)
    with pytest.raises(ConfigError, match="weights depend on no metadata, not on age, domian"):
        new("uniform").refuse_unseen(rows)
    new("full gate").refuse_unseen(CONTEXT)


def test_weights_of_a_later_mixdpo_are_refused() -> None:
    with pytest.raises(ModelError, match="weights of kind 'oracle', which this mixdpo does not know; update mixdpo"):
        weighting_from_description({"kind": "oracle"}, 2, {})


def test_a_prior_is_the_same_for_all() -> None:
    close(PriorWeights(torch.tensor([2.0, 6.0]).log())(None, 3).exp(), torch.tensor([[0.25, 0.75]]).expand(3, -1))
