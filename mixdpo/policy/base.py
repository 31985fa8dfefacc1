"""What experts are changes of, and whether an expert that was trained elsewhere fits: reference, tokens, architecture.

Low-rank heads, adapters and hidden states mean something over one reference only. Two experts can stand in one mixture
where all that they were changes of is equal, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mixdpo.files import canonical_json
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.loading import tokenizer_difference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mixdpo.policy.mixture import MixturePolicy

# of a model's configuration: where it came from and how it was stored, not what it computes
STORED = ("_name_or_path", "architectures", "dtype", "tie_word_embeddings", "torch_dtype", "transformers_version")


@dataclass(frozen=True)
class Base:
    """All that an expert takes for given.

    Attributes:
        architecture: the section of params.yaml, as a mapping.
    """

    reference: SharedTrunk
    tokenizer: PreTrainedTokenizerBase
    architecture: Mapping[str, Any]


def base_of(policy: MixturePolicy, expert: int) -> Base:
    """What expert `expert` of a mixture was trained on."""
    references = [reference for reference, _ in policy.reference.models()]
    reference = references[expert] if len(references) > 1 else references[0]
    return Base(reference, policy.tokenizer, policy.description["architecture"])


def architecture_difference(base: Base, other: Base) -> str | None:
    """How the experts of `other` are built otherwise than those of `base`, if they are."""
    for key in ("kind", "head", "rank", "lora"):
        found, wanted = other.architecture.get(key), base.architecture.get(key)
        if canonical_json(found) != canonical_json(wanted):
            return f"{key} {_said(found)} in its architecture, expected {_said(wanted)}"
    return None


def reference_difference(base: Base, other: Base) -> str | None:
    """How `other` is of another reference or other tokens than `base`, if it is."""
    if difference := tokenizer_difference(base.tokenizer, other.tokenizer):
        return f"another vocabulary: {difference}"
    if difference := tensor_difference(base.reference, other.reference):
        return f"another reference: {difference}"
    found, wanted = (_computed(each.reference.trunk.config.to_dict()) for each in (other, base))
    if differing := sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)):
        key = differing[0]
        return f"another reference: {key} {found.get(key)} in its configuration, expected {wanted.get(key)}"
    return None


def tensor_difference(one: nn.Module, other: nn.Module) -> str | None:
    """The first tensor in which two modules differ, if they do."""
    wanted, found = one.state_dict(), other.state_dict()
    if differing := sorted(wanted.keys() ^ found.keys()):
        return f"only one of the two has {differing[0]}"
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            return f"{name} is {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        if not torch.equal(tensor, found[name].to(tensor.device)):
            return f"{name} has other values"
    return None


def _computed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in STORED}


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
