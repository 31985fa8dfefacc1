"""A mixture as a directory: safetensors and JSON, read back to the same log-probs.

mixture.json               what it is (schema, experts, likelihood, latent, architecture, weights)
reference/                 the frozen reference with its tokenizer: a plain Hugging Face causal LM
reference-K/               that of expert K > 0, where each expert has a reference of its own
trunk.safetensors          the shared body (absent where it is frozen: then it is the reference's)
trunk-lora.safetensors     the adapters in the shared body, where it has some
expert-K.safetensors       one file an expert: its head, its whole model, or its adapters in the reference
weights.safetensors        the gate, or the prior over experts
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from mixdpo.errors import ConfigError, ModelError
from mixdpo.files import replacing, write_json
from mixdpo.policy.description import read_description
from mixdpo.policy.experts import Experts, SharedTrunk
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import experts_of, frozen_reference, load_causal_lm, new_experts, reference_models
from mixdpo.policy.lora import adapters, merged_state
from mixdpo.policy.weighting import weighting_from_description

if TYPE_CHECKING:
    from mixdpo.policy.mixture import MixturePolicy

SCHEMA = 2
NAMES = ("a mixture", "`mixdpo train` or `mixdpo pull`")
KEYS = ("experts", "references", "likelihood", "latent", "architecture", "weights", "description")


def save_policy(policy: MixturePolicy, directory: Path) -> Path:
    """`MixturePolicy.save_pretrained`."""
    with replacing(directory) as target:
        target.mkdir(parents=True)
        for place, (reference, head) in enumerate(policy.reference.models()):
            _as_causal_lm(reference, head).save_pretrained(target / _reference(place))
            policy.tokenizer.save_pretrained(target / _reference(place))
        models = policy.expert_models
        if isinstance(models, SharedTrunk):
            if models.trainable:
                save_file(_tensors(models.trunk.state_dict()), target / "trunk.safetensors")
            elif own := adapters(models.trunk):
                save_file(_tensors(own), target / "trunk-lora.safetensors")
            for expert in range(models.experts):
                save_file(_head_tensors(models, expert), target / f"expert-{expert}.safetensors")
        else:
            for expert, (member, _) in enumerate(models.models()):
                own = adapters(member.trunk) or member.state_dict()
                save_file(_tensors(own), target / f"expert-{expert}.safetensors")
        save_file(_tensors(policy.weighting.state_dict()), target / "weights.safetensors")
        write_json(target / "mixture.json", _description(policy))
    return directory


def load_policy(directory: Path) -> MixturePolicy:
    """Read what `save_policy` wrote.

    Raises:
        ModelError: it is not a mixture, of another schema, or its parts do not fit together.
    """
    from mixdpo.policy.mixture import MixturePolicy

    about = read_description(directory, "mixture.json", SCHEMA, KEYS, *NAMES)
    model, tokenizer = load_causal_lm(directory / "reference")
    experts = about["experts"]
    reference: Experts
    if about["references"] == 1:
        reference = frozen_reference(copy.deepcopy(model))
        models = new_experts(model, experts, about["architecture"], torch.Generator().manual_seed(0))
    else:
        reference = reference_models([directory / _reference(place) for place in range(about["references"])], tokenizer)
        models = experts_of(reference)
    try:
        if isinstance(models, SharedTrunk):
            if models.trainable:
                models.trunk.load_state_dict(load_file(directory / "trunk.safetensors"))
            elif own := adapters(models.trunk):
                _load_adapters(own, directory / "trunk-lora.safetensors")
            for expert in range(experts):
                _load_head(models, expert, load_file(directory / f"expert-{expert}.safetensors"))
        else:
            for expert, (member, _) in enumerate(models.models()):
                file = directory / f"expert-{expert}.safetensors"
                if own := adapters(member.trunk):
                    _load_adapters(own, file)
                else:
                    member.load_state_dict(load_file(file))
        weighting = weighting_from_description(about["weights"], experts, load_file(directory / "weights.safetensors"))
        likelihood = Likelihood(**about["likelihood"])
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"{directory}: its files do not fit its mixture.json ({str(error).splitlines()[0]}); pull or train it again"
        ) from error
    return MixturePolicy(models, weighting, reference, tokenizer, likelihood, about["latent"], about["description"])


def export_expert(policy: MixturePolicy, expert: int, directory: Path) -> Path:
    """`MixturePolicy.export_expert`: loadable by `AutoModelForCausalLM`, embeddings untied."""
    if not 0 <= expert < policy.experts:
        raise ConfigError(f"expert {expert} does not exist: this mixture has experts 0 to {policy.experts - 1}")
    member, head = list(policy.expert_models.models())[expert]
    with replacing(directory) as target:
        _as_causal_lm(member, head).save_pretrained(target)
        policy.tokenizer.save_pretrained(target)
    return directory


def _reference(place: int) -> str:
    return f"reference-{place}" if place else "reference"


def _as_causal_lm(model: SharedTrunk, head: int) -> PreTrainedModel:
    config = copy.deepcopy(model.trunk.config)
    # the expert heads are parameters of their own, so the exported head must be too
    config.tie_word_embeddings = False
    whole = AutoModelForCausalLM.from_config(config).to(dtype=torch.float32)
    whole.base_model.load_state_dict(merged_state(model.trunk))
    weight, bias = model.heads.dense(head)
    with torch.no_grad():
        whole.get_output_embeddings().weight.copy_(weight)
        if bias is not None:
            whole.get_output_embeddings().bias.copy_(bias)
    return whole.eval()


def _description(policy: MixturePolicy) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "experts": policy.experts,
        "references": policy.reference.experts,
        "likelihood": policy.likelihood.describe(),
        "latent": policy.latent,
        "architecture": policy.description["architecture"],
        "weights": policy.weighting.describe(),
        "description": policy.description,
    }


def _tensors(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # clone: safetensors refuses tensors that share memory
    return {name: tensor.detach().clone().contiguous() for name, tensor in named.items()}


def _head_tensors(model: SharedTrunk, expert: int) -> dict[str, Tensor]:
    return {name: tensor[expert].clone().contiguous() for name, tensor in model.heads.state_dict().items()}


def _load_head(model: SharedTrunk, expert: int, tensors: dict[str, Tensor]) -> None:
    _copy({name: parameter[expert] for name, parameter in model.heads.named_parameters()}, tensors, f"expert {expert}")


def _load_adapters(own: Mapping[str, Tensor], file: Path) -> None:
    _copy(own, load_file(file), file.name)


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    if own.keys() != tensors.keys():
        raise KeyError(f"{what} has {sorted(tensors)} where {sorted(own)} were expected")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            raise RuntimeError(f"{what}: {name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}")
        own[name].copy_(tensor)
