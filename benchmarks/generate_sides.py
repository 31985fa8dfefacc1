"""The sides of generate.py: K experts in one batch, one after another, and `generate` of transformers for each."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from dpo_sides import RANK, SIZES, Size
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from mixdpo.compute import Compute, prepare_compute
from mixdpo.config.models import Device
from mixdpo.policy import MixturePolicy
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.weighting import PriorWeights

END = 0

Side = Callable[[int], int]  # writes everything with this seed; → tokens written


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        rows: prompts that each expert continues.
        samples: texts of each prompt.
        slots: rows that ours writes at once; 0 takes all.
        prompt: tokens of the longest prompt; the shortest has a quarter of them.
        new_tokens: of each text, at most.
        lengths: `mixed` ends texts by chance, `equal` lets none end before that.
    """

    size: str
    experts: int
    head: str
    rows: int
    samples: int
    slots: int
    prompt: int
    new_tokens: int
    lengths: str
    dtype: str
    device: str
    threads: int

    @property
    def shape(self) -> Size:
        return SIZES[self.size]


class Sides:
    """All sides hold the same experts and continue the same prompts."""

    def __init__(self, case: Case) -> None:
        self.case = case
        compute = prepare_compute(Device(device=case.device, dtype=DTYPES[case.dtype], threads=case.threads))
        self.compute = compute
        model = _new_model(case)
        self.theirs = copy.deepcopy(model).to(compute.device)
        self.policy = _policy(case, model, compute)
        # as transformers needs them: a whole head each
        heads = next(self.policy.expert_models.models())[0].heads
        self.heads = [_linear(*heads.dense(expert)) for expert in range(case.experts)]
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(case.prompt // 4, case.prompt + 1, (case.rows,), generator=generator).tolist()
        self.prompts = [
            torch.randint(1, case.shape.vocabulary, (length,), generator=generator).tolist() for length in lengths
        ]

    def in_one_batch(self, seed: int) -> int:
        """Ours: every prompt for each expert."""
        texts = self._texts()
        weights = torch.eye(self.case.experts).repeat_interleave(len(texts), dim=0)
        return self._write(texts * self.case.experts, seed=seed, weights=weights)

    def one_after_another(self, seed: int) -> int:
        """Ours, an expert at a time."""
        return sum(self._write(self._texts(), seed=seed, expert=expert) for expert in range(self.case.experts))

    def by_transformers(self, batch: int) -> Side:
        """Theirs, an expert at a time, `batch` rows at once."""
        settings = GenerationConfig(
            max_new_tokens=self.case.new_tokens,
            do_sample=True,
            top_k=0,
            eos_token_id=END,
            pad_token_id=END,
            num_return_sequences=self.case.samples,
        )

        def side(seed: int) -> int:
            tokens = 0
            half = torch.autocast(self.compute.device.type, torch.bfloat16, enabled=self.case.dtype == "bf16")
            with torch.random.fork_rng(), half:
                torch.manual_seed(seed)
                for head in self.heads:
                    self.theirs.lm_head = head
                    for start in range(0, self.case.rows, batch):
                        ids, mask = self._left_padded(self.prompts[start : start + batch])
                        out = self.theirs.generate(ids, attention_mask=mask, generation_config=settings)
                        ended = (out[:, ids.shape[1] :] == END).long()
                        tokens += int((ended.cumsum(dim=-1) - ended == 0).sum())
            return tokens

        return side

    def _texts(self) -> list[str]:
        return [" ".join(map(str, prompt)) for prompt in self.prompts for _ in range(self.case.samples)]

    def _write(self, prompts: list[str], **who: Any) -> int:
        written = self.policy.generate(
            prompts, max_new_tokens=self.case.new_tokens, batch=self.case.slots or len(prompts), **who
        )
        return sum(len(text.split()) for text in written.texts) + sum(written.finished)

    def _left_padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, prompts))
        ids = torch.tensor([[END] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        return ids.to(self.compute.device), mask.to(self.compute.device)


DTYPES: dict[str, Any] = {"fp32": "float32", "bf16": "bfloat16"}


def _new_model(case: Case) -> GPT2LMHeadModel:
    """GPT-2 from its configuration, whose head has a bias that ends texts."""
    size = case.shape
    config = GPT2Config(
        vocab_size=size.vocabulary,
        n_positions=case.prompt + case.new_tokens,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        bos_token_id=END,
        eos_token_id=END,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).eval()
    bias = torch.zeros(size.vocabulary)
    end = 2 / case.new_tokens  # its probability at each token; the other tokens are about equally likely
    bias[END] = math.log(size.vocabulary * end / (1 - end)) if case.lengths == "mixed" else -1e4
    model.lm_head = _linear(model.lm_head.weight.detach(), bias)
    return model.requires_grad_(False)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(1, 1).requires_grad_(False)
    layer.weight.data = weight
    assert bias is not None
    layer.bias.data = bias
    return layer


def _policy(case: Case, model: GPT2LMHeadModel, compute: Compute) -> MixturePolicy:
    rank = RANK if case.head == "lowrank" else None
    architecture = {"kind": "shared", "head": case.head, "rank": rank, "trunk": "frozen"}
    generator = torch.Generator().manual_seed(0)
    experts = new_experts(model, case.experts, architecture, generator)
    assert isinstance(experts, SharedTrunk)
    experts.perturb(0.1, generator)
    # no other word contains the one that ends texts
    names = {"end" if token == END else str(token): token for token in range(case.shape.vocabulary)}
    words = Tokenizer(models.WordLevel(names, unk_token="end"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="end")
    policy = MixturePolicy(
        *(experts, PriorWeights.uniform(case.experts), frozen_reference(model), tokenizer),
        *(Likelihood(0.1), "pair", {"architecture": architecture}),
    )
    policy.precision = compute.precision
    return policy.requires_grad_(False).to(compute.device)
