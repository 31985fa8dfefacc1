from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from mixdpo.errors import ModelError
from mixdpo.policy import MixturePolicy
from mixdpo.policy.experts import IndependentExperts, SharedTrunk
from mixdpo.policy.loading import new_experts
from mixdpo.policy.lora import adapters, merged_state
from mixdpo.policy.tokens import TokenRow, pad

MakePolicy = Callable[..., MixturePolicy]
MakeModel = Callable[..., PreTrainedModel]
PROMPTS, COMPLETIONS = ["the cat", "a mat", "the dog"], [" sat on it", "", " did not like the cat"]
ROWS = [TokenRow([0, 40, 41], [50, 51, 0]), TokenRow([0], [60]), TokenRow([0, 40], [70, 71, 72])]
close = torch.testing.assert_close
each_architecture = pytest.mark.parametrize("architecture", ["gpt2", "llama", "neox"])


def independent(model: PreTrainedModel, experts: int = 3, seed: int = 1, **lora: Any) -> IndependentExperts:
    section = {"kind": "independent", "lora": {"rank": 2, "alpha": 4.0, "targets": None, **lora}}
    models = new_experts(model, experts, section, torch.Generator().manual_seed(seed))
    assert isinstance(models, IndependentExperts)
    return models


@each_architecture
def test_adapted_experts_hold_the_weights_of_their_base_once(architecture: str, make_model: MakeModel) -> None:
    plain = make_model(architecture)
    base = sum(part.numel() for part in plain.parameters())
    if plain.config.tie_word_embeddings:
        base += plain.get_output_embeddings().weight.numel()  # a head is a parameter of its own
    models = independent(plain)
    frozen = [part for part in models.parameters() if not part.requires_grad]
    assert sum(part.numel() for part in frozen) == base
    # each expert reads its base from the same memory
    shared = [[p.data_ptr() for p in member.parameters() if not p.requires_grad] for member, _ in models.models()]
    assert shared[0] == shared[1] == shared[2]
    assert set(shared[0]) == {part.data_ptr() for part in frozen}
    own = [{id(part) for part, _ in models.expert_parameters(expert)} for expert in range(3)]
    assert not own[0] & own[1]
    assert set().union(*own) == {id(part) for part in models.parameters() if part.requires_grad}
    models.select([1, 0, 1]).to(torch.float64)
    assert frozen[0].dtype == torch.float64  # moving one moves the base of all


@each_architecture
@torch.no_grad()
def test_adapted_experts_start_equal_with_directions_of_their_own_from_the_generator(
    architecture: str, make_model: MakeModel
) -> None:
    state = torch.get_rng_state()
    models, again = (independent(make_model(architecture)) for _ in range(2))
    other = independent(make_model(architecture), seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    logps = models(pad(ROWS))
    assert torch.equal(logps, logps[:, :1].expand(-1, 3))
    for expert in range(3):
        for (one, _), (same, _), (different, _) in zip(
            *(each.expert_parameters(expert) for each in (models, again, other)), strict=True
        ):
            assert torch.equal(one, same)
            assert torch.equal(one, different) == (not one.any())  # B = 0, A drawn
    first, second = (adapters(list(models.models())[expert][0].trunk) for expert in (0, 1))
    assert all(not torch.equal(first[name], second[name]) for name in first if "lora_A" in name)


def test_adapted_experts_part_in_training_while_base_and_head_stay(make_model: MakeModel) -> None:
    models = independent(make_model())
    before = {name: part.clone() for name, part in models.named_parameters() if not part.requires_grad}
    optimizer = torch.optim.SGD([part for part in models.parameters() if part.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        models(pad(ROWS)).sum().backward()
        optimizer.step()
    assert all(torch.equal(part, before[name]) for name, part in models.named_parameters() if name in before)
    logps = models(pad(ROWS)).detach()
    assert (logps[:, 0] - logps[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_noise_parts_adapted_experts_and_leaves_base_and_head_alone(make_model: MakeModel) -> None:
    models = independent(make_model())
    before = {name: part.clone() for name, part in models.named_parameters() if not part.requires_grad}
    models.perturb(0.5, torch.Generator().manual_seed(3))
    logps = models(pad(ROWS))
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert (logps[:, one] - logps[:, other]).abs().max() > 1e-3
    assert all(torch.equal(part, before[name]) for name, part in models.named_parameters() if name in before)


def test_an_adapted_shared_trunk_learns_by_its_adapters_alone(make_policy: MakePolicy) -> None:
    models = make_policy("lora").expert_models
    assert isinstance(models, SharedTrunk)
    learning = {name for name, part in models.trunk.named_parameters() if part.requires_grad}
    assert learning
    assert all(".lora_" in name for name in learning)
    models(pad(ROWS)).sum().backward()
    assert all(part.grad is not None for part in models.parameters() if part.requires_grad)


@each_architecture
@pytest.mark.parametrize("kind", ["lora", "independent-lora"])
@torch.no_grad()
def test_only_adapters_are_saved_and_an_export_has_them_merged(
    kind: str, architecture: str, make_policy: MakePolicy, tmp_path: Path
) -> None:
    policy = make_policy(kind, architecture)
    logps = policy.logps(PROMPTS, COMPLETIONS)
    directory = policy.save_pretrained(tmp_path / "mixture")
    file = directory / ("trunk-lora.safetensors" if kind == "lora" else "expert-1.safetensors")
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in load_file(file))
    assert not (directory / "trunk.safetensors").exists()
    close(MixturePolicy.from_pretrained(directory).logps(PROMPTS, COMPLETIONS), logps, rtol=0, atol=0)
    plain = AutoModelForCausalLM.from_pretrained(policy.export_expert(1, tmp_path / "expert"))
    member, head = list(policy.expert_models.models())[1]
    ids = torch.tensor([[0, 40, 41, 50, 51]])
    states = member.trunk(input_ids=ids).last_hidden_state[0]
    close(plain(input_ids=ids).logits[0], member.heads.one(states, head), rtol=1e-4, atol=1e-4)


@each_architecture
def test_a_body_without_adapters_is_merged_already(architecture: str, make_model: MakeModel) -> None:
    body = make_model(architecture).base_model
    state = merged_state(body)
    assert state.keys() == body.state_dict().keys()
    assert not adapters(body)


def test_targets_choose_the_layers_by_the_ends_of_their_paths(make_model: MakeModel) -> None:
    models = independent(make_model(), targets=("attn.c_proj", "c_fc"))
    layers = {name.partition(".lora_")[0] for name in adapters(next(models.models())[0].trunk)}
    assert layers == {"h.0.attn.c_proj", "h.1.attn.c_proj", "h.0.mlp.c_fc", "h.1.mlp.c_fc"}


def test_targets_that_name_no_layer_are_refused_with_those_there_are(make_model: MakeModel) -> None:
    with pytest.raises(ModelError) as error:
        independent(make_model(), targets=("c_attn", "q_proj", "ln_1"))
    assert str(error.value) == (
        "LoRA targets q_proj, ln_1 name no linear layer of GPT2Model; it has c_attn, c_fc, c_proj: name some of these, "
        "or leave targets out to take all"
    )


def test_a_missing_peft_is_named_with_the_remedy(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def without_peft(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return really(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(ModelError, match=r"LoRA adapters need the package peft; install it with `pip install 'mixdpo"):
        independent(make_model())


def test_adapters_that_do_not_fit_are_refused(make_policy: MakePolicy, tmp_path: Path) -> None:
    directory = make_policy("lora").save_pretrained(tmp_path / "mixture")
    file = directory / "trunk-lora.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name][:-1]}, file)
    with pytest.raises(ModelError, match=r"trunk-lora\.safetensors: h\.0\.attn\.c_attn\.lora_A\.weight is \(1, 16\), "):
        MixturePolicy.from_pretrained(directory)
    save_file({name: tensors[name]}, file)
    with pytest.raises(ModelError, match=r"its files do not fit its mixture\.json"):
        MixturePolicy.from_pretrained(directory)
