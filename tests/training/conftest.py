"""Annotators who each love one colour, and models of a few thousand parameters that can learn to say it."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from mixdpo.config.models import FromConfig
from mixdpo.config.policy import Policy
from mixdpo.config.training import Training
from mixdpo.policy.context import Context
from mixdpo.policy.experts import Experts
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, new_experts
from mixdpo.policy.tokens import TokenRow, encode_prompts, encode_rows, pad
from mixdpo.policy.weighting import Weighting, new_weighting
from mixdpo.training import Mixture, PreferencePairs, Setup, TrainingResult, train_mixture
from mixdpo.training.growth import grow_mixture
from mixdpo.training.tokenizer import new_causal_lm, train_bpe

COLOURS = [" red", " green", " blue", " white", " black"]
PROMPTS = {"wall": ["the wall is", "a wall of"], "sea": ["the sea is", "a sea of"]}
CPU = torch.device("cpu")


class Task(NamedTuple):
    pairs: PreferencePairs
    styles: torch.Tensor  # (pairs,) the colour that each pair's annotator loves
    domains: torch.Tensor  # (pairs,) 0 wall, 1 sea
    context: Context  # what mixing weights may depend on


class Trained(NamedTuple):
    result: TrainingResult
    experts: Experts
    weighting: Weighting
    likelihood: Likelihood


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_bpe(
        [prompt + colour for kind in PROMPTS.values() for prompt in kind for colour in COLOURS] * 3, 290, 32
    )


@pytest.fixture(scope="session")
def new_model(tokenizer: PreTrainedTokenizerBase) -> Callable[[], Any]:
    def new() -> Any:
        shape = FromConfig(kind="config", architecture="gpt2", vocabulary=300, layers=1, width=16, heads=2, context=32)
        return new_causal_lm(shape, tokenizer, seed=0).eval()

    return new


@pytest.fixture(scope="session")
def make_task(tokenizer: PreTrainedTokenizerBase, new_model: Callable[[], Any]) -> Callable[..., Task]:
    """`styles` annotators each, who choose their colour of two random ones, by coin where it is neither."""

    @torch.no_grad()
    def make(annotators: list[int], each: int | list[int] = 8, seed: int = 0, by_domain: bool = False) -> Task:
        rng = random.Random(seed)
        colours = COLOURS[: len(annotators)]
        texts: list[tuple[str, str, str]] = []
        who, styles, domains = [], [], []
        for style, count in enumerate(annotators):
            for _ in range(count):
                annotator = len(set(who))
                for _ in range(each if isinstance(each, int) else each[style]):
                    domain = style if by_domain else rng.randrange(2)
                    pair = rng.sample(colours, 2)
                    if pair[1] == colours[style]:
                        pair.reverse()
                    texts.append((rng.choice(list(PROMPTS.values())[domain]), *pair))
                    who.append(annotator)
                    styles.append(style)
                    domains.append(domain)
        prompts, chosen, rejected = (list(column) for column in zip(*texts, strict=True))
        reference = frozen_reference(new_model())
        rows = [encode_rows(tokenizer, prompts, side) for side in (chosen, rejected)]
        alone = [TokenRow(ids, []) for ids in encode_prompts(tokenizer, prompts)]
        features = reference.prompt_features(pad(alone))
        pairs = PreferencePairs(
            [f"pair-{place}" for place in range(len(texts))],
            *rows,
            torch.tensor(who),
            reference(pad(rows[0]))[:, 0],
            reference(pad(rows[1]))[:, 0],
            features,
            [f"annotator-{code}" for code in range(len(set(who)))],
        )
        context = Context(
            prompts,
            lambda: features,
            [pairs.annotator_names[code] for code in who],
            {"domain": [list(PROMPTS)[domain] for domain in domains]},
        )
        return Task(pairs, torch.tensor(styles), torch.tensor(domains), context)

    return make


LINEAR = {"kind": "shared", "head": "linear", "rank": None, "trunk": "frozen"}
SETTINGS = {
    "beta": 0.5,
    "epochs": 1,
    "batch_pairs": 48,
    "learning_rate": 1e-2,
    "warmup": 0.1,
    "weight_decay": 0.0,
    "clip": 10.0,
    "tempering": {"start": 1.0, "steps": 0},
    "tile_tokens": 4096,
    "max_tokens": 32,
    "evaluate_every": 1000,
    "checkpoint_every": 1000,
}


def settings_of(**changes: Any) -> Training:
    return Training.model_validate(SETTINGS | changes)


def policy_of(experts: int, **changes: Any) -> Policy:
    values = {
        "experts": experts,
        "architecture": LINEAR,
        "weights": {"kind": "fixed", "values": None},
        "latent": "annotator",
        "symmetry": {"kind": "noise", "scale": 0.1} if experts > 1 else {"kind": "none"},
    }
    return Policy.model_validate(values | changes)


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., Training]:
    return settings_of


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., Policy]:
    return policy_of


@pytest.fixture(scope="session")
def train(new_model: Callable[[], Any]) -> Callable[..., Trained]:
    """Train on one task and look at another; keywords change Policy (first) or Training."""

    def run(
        task: Task,
        held_out: Task,
        experts: int,
        seed: int = 0,
        checkpoint: Any = None,
        precision: torch.dtype = torch.float32,
        **changes: Any,
    ) -> Trained:
        of_policy = {name: changes.pop(name) for name in list(changes) if name in Policy.model_fields}
        policy = policy_of(experts, **of_policy)
        settings = settings_of(**changes)
        models = new_experts(
            copy.deepcopy(new_model()),
            experts,
            policy.architecture.model_dump(),
            torch.Generator().manual_seed(seed),
        )
        weighting = new_weighting(policy.weights, experts, task.context, torch.Generator().manual_seed(seed))
        pairs, validation = (
            dataclasses.replace(each.pairs, features=weighting.encode(each.context))
            if weighting.needs_features
            else each.pairs
            for each in (task, held_out)
        )
        mixture = Mixture(models, weighting, Likelihood.of(policy, settings))
        setup = Setup(settings, policy, seed, CPU, precision)
        run = grow_mixture if policy.growth else train_mixture
        result = run(mixture, pairs, validation, setup, checkpoint=checkpoint)
        return Trained(result, mixture.experts, mixture.weighting, mixture.likelihood)

    return run
