"""Causal language models from a Hub id or a directory of the same layout, and experts made from one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import ModelError
from mixdpo.hub import asking_hub, first_line
from mixdpo.policy.experts import Experts, IndependentExperts, SharedTrunk, split_causal_lm
from mixdpo.policy.heads import LinearHeads, fresh_heads


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


def new_experts(
    model: PreTrainedModel, experts: int, architecture: Mapping[str, Any], generator: torch.Generator
) -> Experts:
    """K expert policies, each equal to `model`; `architecture` is the section of params.yaml as a mapping.

    `model` is taken over: a shared trunk keeps its body.
    """
    if architecture["kind"] == "shared":
        body, weight, bias = split_causal_lm(model)
        heads = fresh_heads(weight, bias, experts, architecture["rank"], generator)
        return SharedTrunk(body, heads, trainable=architecture["trunk"] == "trainable")
    members = []
    for _ in range(experts):
        twin = AutoModelForCausalLM.from_config(model.config).to(dtype=model.dtype)
        twin.load_state_dict(model.state_dict())
        body, weight, bias = split_causal_lm(twin.eval())
        members.append(SharedTrunk(body, LinearHeads.copies(weight, bias, 1), trainable=True))
    return IndependentExperts(members)
