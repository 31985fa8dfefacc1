"""A mixture as a directory: safetensors and JSON, read back to the same log-probs.

mixture.json               what it is (schema, experts, beta, latent, architecture, weights)
reference/                 the frozen reference with its tokenizer: a plain Hugging Face causal LM
trunk.safetensors          the shared body (absent where it is frozen: then it is the reference's)
expert-K.safetensors       one file an expert: its head, or its whole model
weights.safetensors        the gate, or the prior over experts
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mixdpo.errors import ConfigError, ModelError
from mixdpo.files import replacing, write_json
from mixdpo.policy.experts import IndependentExperts, SharedTrunk
from mixdpo.policy.loading import frozen_reference, load_causal_lm, new_experts
from mixdpo.policy.weighting import Gate, PriorWeights, Weighting

if TYPE_CHECKING:
    from mixdpo.policy.mixture import MixturePolicy

SCHEMA = 1
KEYS = ("experts", "beta", "latent", "architecture", "weights", "description")


def save_policy(policy: MixturePolicy, directory: Path) -> Path:
    """`MixturePolicy.save_pretrained`."""
    with replacing(directory) as target:
        target.mkdir(parents=True)
        reference = _as_causal_lm(policy.reference, 0, _config_of(policy.reference))
        reference.save_pretrained(target / "reference")
        policy.tokenizer.save_pretrained(target / "reference")
        models = policy.expert_models
        if isinstance(models, SharedTrunk):
            if models.trainable:
                save_file(_tensors(models.trunk), target / "trunk.safetensors")
            for expert in range(models.experts):
                save_file(_head_tensors(models, expert), target / f"expert-{expert}.safetensors")
        else:
            for expert, (member, _) in enumerate(models.models()):
                save_file(_tensors(member), target / f"expert-{expert}.safetensors")
        save_file(_tensors(policy.weighting), target / "weights.safetensors")
        write_json(target / "mixture.json", _description(policy))
    return directory


def load_policy(directory: Path) -> MixturePolicy:
    """Read what `save_policy` wrote.

    Raises:
        ModelError: it is not a mixture, of another schema, or its parts do not fit together.
    """
    from mixdpo.policy.mixture import MixturePolicy

    about = _read_description(directory)
    model, tokenizer = load_causal_lm(directory / "reference")
    reference = frozen_reference(copy.deepcopy(model))
    experts, architecture = about["experts"], about["architecture"]
    models = new_experts(model, experts, architecture, torch.Generator().manual_seed(0))
    try:
        if isinstance(models, SharedTrunk):
            if models.trainable:
                models.trunk.load_state_dict(load_file(directory / "trunk.safetensors"))
            for expert in range(experts):
                _load_head(models, expert, load_file(directory / f"expert-{expert}.safetensors"))
        else:
            assert isinstance(models, IndependentExperts)
            for expert, (member, _) in enumerate(models.models()):
                member.load_state_dict(load_file(directory / f"expert-{expert}.safetensors"))
        weighting = _weighting(about["weights"], experts, load_file(directory / "weights.safetensors"))
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{directory}: its files do not fit its mixture.json ({str(error).splitlines()[0]}); pull or train it again"
        ) from error
    return MixturePolicy(models, weighting, reference, tokenizer, about["beta"], about["latent"], about["description"])


def export_expert(policy: MixturePolicy, expert: int, directory: Path) -> Path:
    """`MixturePolicy.export_expert`: loadable by `AutoModelForCausalLM`, embeddings untied."""
    if not 0 <= expert < policy.experts:
        raise ConfigError(f"expert {expert} does not exist: this mixture has experts 0 to {policy.experts - 1}")
    member, head = list(policy.expert_models.models())[expert]
    with replacing(directory) as target:
        _as_causal_lm(member, head, _config_of(policy.reference)).save_pretrained(target)
        policy.tokenizer.save_pretrained(target)
    return directory


def _config_of(reference: SharedTrunk) -> Any:
    config = copy.deepcopy(reference.trunk.config)
    # the expert heads are parameters of their own, so the exported head must be too
    config.tie_word_embeddings = False
    return config


def _as_causal_lm(model: SharedTrunk, head: int, config: AutoConfig) -> PreTrainedModel:
    whole = AutoModelForCausalLM.from_config(config).to(dtype=torch.float32)
    whole.base_model.load_state_dict(model.trunk.state_dict())
    weight, bias = model.heads.dense(head)
    with torch.no_grad():
        whole.get_output_embeddings().weight.copy_(weight)
        if bias is not None:
            whole.get_output_embeddings().bias.copy_(bias)
    return whole.eval()


def _description(policy: MixturePolicy) -> dict[str, Any]:
    weighting = policy.weighting
    if isinstance(weighting, Gate):
        first = weighting.layers[0]
        assert isinstance(first, nn.Linear)
        hidden = first.out_features if len(weighting.layers) > 1 else 0
        weights: dict[str, Any] = {"kind": "gate", "hidden": hidden, "width": first.in_features}
    else:
        weights = {"kind": "prior"}
    return {
        "schema": SCHEMA,
        "experts": policy.experts,
        "beta": policy.beta,
        "latent": policy.latent,
        "architecture": policy.description["architecture"],
        "weights": weights,
        "description": policy.description,
    }


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / "mixture.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{directory} is not a mixture: it has no mixture.json; name a directory that `mixdpo train` or "
            f"`mixdpo pull` wrote"
        ) from None
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON ({error}); pull or train the mixture again") from error
    if about.get("schema") != SCHEMA:
        raise ModelError(f"{path} has schema {about.get('schema')}, this mixdpo reads {SCHEMA}; use a matching mixdpo")
    if missing := [key for key in KEYS if key not in about]:
        raise ModelError(f"{path} lacks {', '.join(missing)}; pull or train the mixture again")
    return about


def _weighting(about: dict[str, Any], experts: int, tensors: dict[str, Tensor]) -> Weighting:
    weighting: Weighting
    if about["kind"] == "gate":
        weighting = Gate(about["width"], experts, about["hidden"])
    else:
        weighting = PriorWeights.uniform(experts)
    weighting.load_state_dict(tensors)
    return weighting


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    # clone: safetensors refuses tensors that share memory
    return {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}


def _head_tensors(model: SharedTrunk, expert: int) -> dict[str, Tensor]:
    return {name: tensor[expert].clone().contiguous() for name, tensor in model.heads.state_dict().items()}


def _load_head(model: SharedTrunk, expert: int, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.heads.named_parameters())
    if parameters.keys() != tensors.keys():
        raise KeyError(f"expert {expert} has {sorted(tensors)} where {sorted(parameters)} were expected")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if parameters[name][expert].shape != tensor.shape:
                raise RuntimeError(
                    f"expert {expert}: {name} is {tuple(tensor.shape)}, expected {tuple(parameters[name].shape[1:])}"
                )
            parameters[name][expert].copy_(tensor)
