"""Causal language models from a Hub id or a directory of the same layout; references and experts made from them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import ModelError
from mixdpo.hub import asking_hub, first_line
from mixdpo.policy.experts import Experts, IndependentExperts, SharedTrunk, split_causal_lm, twin
from mixdpo.policy.heads import LinearHeads, fresh_heads
from mixdpo.policy.lora import add_adapters, draw_adapters


def load_causal_lm(source: str | Path, revision: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model (float32, evaluation mode) and its tokenizer. Only safetensors are read, remote code never runs.

    Raises:
        TransientError: no directory, and the Hub does not answer.
        ModelError: neither there nor on the Hub, or not a causal language model.
    """
    named, local = f"causal language model {str(source)!r} (revision {revision})", Path(source).is_dir()
    try:
        with nullcontext() if local else asking_hub(named):
            model, info = AutoModelForCausalLM.from_pretrained(
                str(source),
                revision=revision,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(str(source), revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        what = "the directory is not a causal language model" if local else "it cannot be loaded"
        raise ModelError(
            f"{named}: {what} ({first_line(error)}); expected a directory "
            f"with config.json, model.safetensors and a tokenizer, or a Hub id"
        ) from error
    if missing := sorted(info["missing_keys"]):
        # transformers fills them with random numbers and goes on
        raise ModelError(
            f"{source}: its weights lack {len(missing)} of the model's tensors ({missing[0]} first); name a causal "
            f"language model, or copy this one again"
        )
    if len(tokenizer) > model.config.vocab_size:
        raise ModelError(
            f"{source}: the tokenizer has {len(tokenizer)} tokens but the model embeds {model.config.vocab_size}; "
            f"they do not belong together, name a matching pair"
        )
    return model.eval(), tokenizer


def frozen_reference(model: PreTrainedModel) -> SharedTrunk:
    """The reference policy: one expert that is never trained."""
    body, weight, bias = split_causal_lm(model)
    reference = SharedTrunk(body, LinearHeads.copies(weight, bias, 1), trainable=False)
    return reference.requires_grad_(False).eval()


def reference_models(sources: Sequence[str | Path], tokenizer: PreTrainedTokenizerBase) -> IndependentExperts:
    """One frozen reference an expert, in the order of the sources (`Policy.references`).

    Args:
        sources: directories, or Hub ids.
        tokenizer: the one that all policies of the run use.

    Raises:
        ModelError: as `load_causal_lm`; or a reference has another tokenizer or another vocabulary size.
    """
    references = []
    for source in sources:
        model, its_own = load_causal_lm(source)
        if difference := tokenizer_difference(tokenizer, its_own):
            raise ModelError(
                f"reference {source}: its tokenizer has {difference}; a mixture compares and writes the same tokens: "
                f"name references with the tokenizer of the SFT policy"
            )
        references.append(frozen_reference(model))
    return IndependentExperts(references)


def experts_of(references: Experts) -> IndependentExperts:
    """K whole expert policies, expert k equal to reference k."""
    return IndependentExperts(
        [
            SharedTrunk(
                copy.deepcopy(reference.trunk), copy.deepcopy(reference.heads).requires_grad_(True), trainable=True
            )
            for reference, _ in references.models()
        ]
    )


def new_experts(
    model: PreTrainedModel, experts: int, architecture: Mapping[str, Any], generator: torch.Generator
) -> Experts:
    """K expert policies, each equal to `model`; `architecture` is the section of params.yaml as a mapping.

    `model` is taken over: a shared trunk, or the first expert, keeps its body.

    Raises:
        ModelError: LoRA targets that name no layer, or a model that expert heads cannot stand in for.
    """
    body, weight, bias = split_causal_lm(model)
    if architecture["kind"] == "shared":
        if architecture["trunk"] == "lora":
            add_adapters(body, architecture["lora"], generator)
        heads = fresh_heads(weight, bias, experts, architecture["rank"], generator)
        return SharedTrunk(body, heads, trainable=architecture["trunk"] == "trainable")
    head = LinearHeads.copies(weight, bias, 1)
    if lora := architecture.get("lora"):
        add_adapters(body, lora, generator)
        first = SharedTrunk(body, head.requires_grad_(False), trainable=False)
    else:
        first = SharedTrunk(body, head, trainable=True)
    members = [first, *(twin(first) for _ in range(experts - 1))]
    for member in members[1:]:
        draw_adapters(member.trunk, generator)
    return IndependentExperts(members)


def tokenizer_difference(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """How two tokenizers differ in the tokens that they make of a text, if they do."""
    if len(one) != len(other):
        return f"{len(other)} tokens, not {len(one)}"
    if one.get_vocab() != other.get_vocab():
        return "other tokens"
    for name in ("bos_token_id", "eos_token_id"):
        if getattr(one, name) != getattr(other, name):
            return f"{name} {getattr(other, name)}, not {getattr(one, name)}"
    if _rules(one) != _rules(other):
        return "other rules for cutting a text into tokens"
    return None


def _rules(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    if not tokenizer.is_fast:
        return {}
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    return {part: whole[part] for part in ("normalizer", "pre_tokenizer", "model")}
