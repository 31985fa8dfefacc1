"""Real policies of a few thousand parameters, whose experts and reference differ."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mixdpo.config.models import FromConfig
from mixdpo.policy import MixturePolicy
from mixdpo.policy.gate_inputs import GateInputs
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.weighting import Gate, PriorWeights, Weighting
from mixdpo.training.tokenizer import END_OF_TEXT, new_causal_lm, train_bpe

TEXTS = ["the cat sat on the mat and liked it", "the dog did not like the cat at all", "a mat is a mat"]
LORA = {"rank": 2, "alpha": 4.0, "targets": None}
ARCHITECTURES = {
    "linear": {"kind": "shared", "head": "linear", "rank": None, "trunk": "trainable"},
    "lowrank": {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "frozen"},
    "lowrank-trainable": {"kind": "shared", "head": "lowrank", "rank": 2, "trunk": "trainable"},
    "lora": {"kind": "shared", "head": "linear", "rank": None, "trunk": "lora", "lora": LORA},
    "independent": {"kind": "independent"},
    "independent-lora": {"kind": "independent", "lora": LORA},
}
MakePolicy = Callable[..., MixturePolicy]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_bpe(TEXTS, 280, 64)


@pytest.fixture(scope="session")
def letters() -> PreTrainedTokenizerBase:
    """Four tokens, so that all short completions can be counted: a, b, c and the end of text."""
    words = {END_OF_TEXT: 0, "a": 1, "b": 2, "c": 3}
    each = Tokenizer(models.WordLevel(words, unk_token=END_OF_TEXT))
    each.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    each.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=each, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)


@pytest.fixture(scope="session")
def make_model(tokenizer: PreTrainedTokenizerBase) -> Callable[..., PreTrainedModel]:
    """A causal language model with livelier weights than a new one has."""

    def make(
        architecture: str = "gpt2", tokenizer: PreTrainedTokenizerBase = tokenizer, seed: int = 0
    ) -> PreTrainedModel:
        shape = FromConfig(
            kind="config", architecture=architecture, vocabulary=300, layers=2, width=16, heads=2, context=64
        )
        model = new_causal_lm(shape, tokenizer, seed)
        shake(model, 0.2, seed)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_policy(make_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerBase) -> MakePolicy:
    """A mixture; with `apart` its experts, weights and trunk have moved away from where they started."""

    def make(
        kind: str = "linear",
        architecture: str = "gpt2",
        experts: int = 3,
        gated: bool = False,
        apart: bool = True,
        tokenizer: PreTrainedTokenizerBase = tokenizer,
        weights: Sequence[float] | None = None,
    ) -> MixturePolicy:
        model = make_model(architecture, tokenizer)
        reference = frozen_reference(copy.deepcopy(model))
        models = new_experts(model, experts, ARCHITECTURES[kind], torch.Generator().manual_seed(1))
        weighting: Weighting = PriorWeights(torch.tensor(weights or [1.0 + k for k in range(experts)]).log())
        if gated:
            weighting = Gate(GateInputs(2 * 16), experts, 4, torch.Generator().manual_seed(2))
        if apart:
            for seed, part in enumerate(part for part in models.parameters() if part.requires_grad):
                shake(part, 0.2, seed)
            for seed, part in enumerate(weighting.parameters()):
                shake(part, 1.0, seed)
        return MixturePolicy(
            models, weighting, reference, tokenizer, Likelihood(0.5), "annotator", {"architecture": ARCHITECTURES[kind]}
        )

    return make


@torch.no_grad()
def shake(what: torch.nn.Module | torch.Tensor, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tensor in [what] if isinstance(what, torch.Tensor) else what.parameters():
        tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=scale)
