from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixdpo.config import Params, parse_params
from mixdpo.errors import ConfigError, ModelError, RegistryError
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.policy.base import Base
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, load_causal_lm, new_experts
from mixdpo.policy.weighting import Gate, PriorWeights, Weighting
from mixdpo.registry import Registry
from mixdpo.stages import train
from mixdpo.stages.start import start_digests, start_from

PROMPTS, COMPLETIONS = ["This film", "A novel"], [" is good.", " was long and dull"]


@pytest.fixture
def params(toy_params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Params:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values = toy_params.model_dump(mode="json", by_alias=True)
    values["training"] |= {"batch_pairs": 4, "epochs": 1, "evaluate_every": 4, "checkpoint_every": 2}
    values["registry"]["url"] = "registry"
    return parse_params(values)


@pytest.fixture(scope="module")
def cached(
    toy_params: Params,
    toy_project: Layout,
    with_reference: Callable[..., Layout],
    tmp_path_factory: pytest.TempPathFactory,
) -> Layout:
    """The toy project as far as `reference`, with the policies of an earlier run in its registry and its inputs."""
    layout = with_reference(
        tmp_path_factory.mktemp("cached"), lambda name: "validation" if name == "test-4" else "train"
    )
    moe = MixturePolicy.from_pretrained(toy_project.policy("moe"))
    with torch.no_grad():
        for parameter in moe.weighting.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    directory = moe.save_pretrained(layout.root / toy_params.inputs / "earlier" / "moe")
    registry = Registry(layout.root / "registry")
    for each in (toy_project.policy("mix"), directory):
        registry.register("films", each, {"schema": 1}, "staging", "an earlier run")
    return layout


@pytest.fixture
def layout(cached: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(cached.root, tmp_path / "project")
    return Layout(tmp_path / "project")


def with_start(params: Params, *start: str, **changes: Any) -> Params:
    """`policies.moe` of the parameters starts so, and differs otherwise as told."""
    values = params.model_dump(mode="json", by_alias=True)
    values["policies"]["moe"] |= {"start": start, "symmetry": {"kind": "none"}} | changes
    return parse_params(values)


def started(params: Params, layout: Layout, weighting: Weighting | None = None) -> MixturePolicy:
    """`policies.moe` as it is before its first step."""
    policy = params.policies["moe"]
    model, tokenizer = load_causal_lm(layout.sft)
    base = Base(frozen_reference(load_causal_lm(layout.sft)[0]), tokenizer, policy.architecture.model_dump())
    experts = new_experts(model, policy.experts, base.architecture, torch.Generator().manual_seed(5))
    weighting = weighting or PriorWeights.uniform(policy.experts)
    start_from(policy, experts, weighting, base, params, layout)
    description = {"architecture": base.architecture}
    return MixturePolicy(experts, weighting, base.reference, tokenizer, Likelihood(0.1), "annotator", description)


def earlier(layout: Layout, version: str = "films@v2") -> MixturePolicy:
    return MixturePolicy.from_pretrained(Registry(layout.root / "registry").materialise(version))


def new_gate(before: MixturePolicy, hidden: int) -> Gate:
    """An untrained gate that sees what the one of `before` does."""
    assert isinstance(before.weighting, Gate)
    return Gate(before.weighting.inputs, before.experts, hidden, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("start", ["films@v2", "earlier/moe"])
def test_a_mixture_goes_on_where_it_was_with_its_gate(start: str, params: Params, layout: Layout) -> None:
    before = earlier(layout)
    gate = new_gate(before, 0)
    policy = started(with_start(params, start), layout, gate)
    assert torch.equal(policy.logps(PROMPTS, COMPLETIONS), before.logps(PROMPTS, COMPLETIONS))
    assert torch.equal(policy.weights(PROMPTS), before.weights(PROMPTS))
    assert (before.weights(PROMPTS) - 1 / 3).abs().max() > 0.1


def test_experts_of_several_versions_and_of_none(params: Params, layout: Layout) -> None:
    policy = started(with_start(params, "films@v2/expert-2", "earlier/moe/expert-0"), layout)
    logps, before = policy.logps(PROMPTS, COMPLETIONS), earlier(layout).logps(PROMPTS, COMPLETIONS)
    assert torch.equal(logps[:, :2], before[:, [2, 0]])
    # the third is the reference
    torch.testing.assert_close(logps[:, 2], policy.reference_logps(PROMPTS, COMPLETIONS))
    assert (logps[:, :2] - logps[:, 2:]).abs().min() > 1e-3
    one_before = earlier(layout, "films@v1").logps(PROMPTS, COMPLETIONS)
    again = started(with_start(params, "films@v1/expert-1", "films@v2/expert-1"), layout)
    wanted = torch.stack([one_before[:, 1], before[:, 1]], dim=-1)
    assert torch.equal(again.logps(PROMPTS, COMPLETIONS)[:, :2], wanted)


def test_a_gate_of_another_shape_starts_anew_and_says_so(
    params: Params, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    before = earlier(layout)
    with caplog.at_level(logging.WARNING):
        policy = started(with_start(params, "films@v2"), layout, new_gate(before, 4))
    assert "films@v2: its gate differs in hidden; the mixing weights start as new ones" in caplog.text
    torch.testing.assert_close(policy.weights(PROMPTS), torch.full((2, 3), 1 / 3))
    with caplog.at_level(logging.WARNING):
        started(with_start(params, "films@v1"), layout, new_gate(before, 0))
    assert "films@v1: its weights are a prior, not of kind gate" in caplog.text
    weights = params.policies["moe"].weights.model_dump(mode="json")
    stays = with_start(params, "films@v1", weights=weights | {"frozen": True})
    with pytest.raises(ConfigError, match="the gate is to stay as in films@v1, but its weights are a prior"):
        started(stays, layout, new_gate(before, 0))


def test_what_does_not_fit_is_refused(params: Params, layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"start gives 4 experts \(films@v1, films@v2/expert-0\) but experts is 3"):
        started(with_start(params, "films@v1", "films@v2/expert-0"), layout)
    with pytest.raises(RegistryError, match=r"films@v2/expert-3 does not exist: .* has expert-0 to expert-2"):
        started(with_start(params, "films@v2/expert-3"), layout)
    with pytest.raises(RegistryError, match="films@v7 does not exist: films has versions v1 to v2"):
        started(with_start(params, "films@v7"), layout)
    with pytest.raises(
        ModelError, match=r"start names nowhere, but there is no directory .*data/external/nowhere; put"
    ):
        started(with_start(params, "nowhere"), layout)
    shared = {"kind": "shared", "head": "linear", "rank": None, "trunk": "frozen"}
    with pytest.raises(
        ModelError, match=r"films@v2 cannot be started from: it has head lowrank .*; use the architecture"
    ):
        started(with_start(params, "films@v2", architecture=shared), layout)


def test_another_sft_model_is_refused_with_the_remedy(params: Params, layout: Layout) -> None:
    model, _ = load_causal_lm(layout.sft)
    with torch.no_grad():
        model.get_input_embeddings().weight[3] += 0.1
    model.save_pretrained(layout.sft)
    with pytest.raises(ModelError) as error:
        started(with_start(params, "films@v2"), layout)
    assert "films@v2 cannot be started from: it has another reference: " in str(error.value)
    assert "set sft.base to the `reference` of that version, below `inputs`, and sft.epochs to 0" in str(error.value)


def test_a_trained_trunk_goes_with_all_its_experts_or_none(params: Params, layout: Layout) -> None:
    trained = {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"}
    first = started(with_start(params, architecture=trained), layout)
    with torch.no_grad():
        for parameter in first.expert_models.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    first.save_pretrained(layout.root / params.inputs / "trunk")
    wanted = first.logps(PROMPTS, COMPLETIONS)
    whole = started(with_start(params, "trunk", architecture=trained), layout)
    assert torch.equal(whole.logps(PROMPTS, COMPLETIONS), wanted)
    for start, architecture in ((("trunk/expert-0",), trained), (("trunk",), trained | {"trunk": "frozen"})):
        with pytest.raises(
            ModelError, match=r"has a trunk of its own .*; let `start` give all experts from that mixture"
        ):
            started(with_start(params, *start, architecture=architecture), layout)


def test_the_key_of_a_training_holds_what_it_starts_from(params: Params, layout: Layout) -> None:
    policy = with_start(params, "films@v2/expert-1", "earlier/moe").policies["moe"]
    version, directory = start_digests(policy, params, layout)
    assert version == Registry(layout.root / "registry").resolve("films@v2").digest
    (layout.root / params.inputs / "earlier" / "moe" / "note.json").write_text("{}", encoding="utf-8")
    assert start_digests(policy, params, layout)[0] == version
    assert start_digests(policy, params, layout)[1] != directory
    assert start_digests(params.policies["moe"], params, layout) == []


def test_with_all_experts_frozen_only_the_gate_learns(params: Params, layout: Layout) -> None:
    weights = params.policies["moe"].weights.model_dump(mode="json") | {"rest_steps": 0, "learning_rate": 0.1}
    going_on = with_start(params, "films@v2", frozen=[0, 1, 2], weights=weights)
    train.run(going_on, layout, "moe")
    before, after = earlier(layout), MixturePolicy.from_pretrained(layout.policy("moe"))
    assert torch.equal(after.logps(PROMPTS, COMPLETIONS), before.logps(PROMPTS, COMPLETIONS))
    assert (after.weights(PROMPTS) - before.weights(PROMPTS)).abs().max() > 1e-3


def test_training_goes_on_from_what_it_is_given(params: Params, layout: Layout) -> None:
    values = with_start(params, "films@v2").model_dump(mode="json", by_alias=True)
    values["training"] |= {"learning_rate": 1e-12}
    train.run(parse_params(values), layout, "moe")
    before, after = earlier(layout), MixturePolicy.from_pretrained(layout.policy("moe"))
    torch.testing.assert_close(after.logps(PROMPTS, COMPLETIONS), before.logps(PROMPTS, COMPLETIONS))
