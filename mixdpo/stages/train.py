"""`mixdpo train NAME`: one policy of params.yaml, from the SFT model to a mixture directory."""

from __future__ import annotations

import copy
import csv
import io
import shutil
from pathlib import Path
from typing import Any

import torch

from mixdpo.compute import prepare_compute
from mixdpo.config import Params
from mixdpo.config.policy import Policy, Training
from mixdpo.errors import ConfigError
from mixdpo.files import code_digests, digest, write_json, write_text
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.policy.base import Base
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, load_causal_lm, new_experts
from mixdpo.policy.weighting import new_weighting
from mixdpo.stages.reference import cache_key
from mixdpo.stages.start import start_digests, start_from
from mixdpo.stages.training_pairs import load_context, load_pairs
from mixdpo.training import Mixture, Setup, TrainingResult, train_mixture

# rows of the curve that the summary averages over
LAST_ROWS = 20


def run(params: Params, layout: Layout, name: str) -> list[Path]:
    """Train policies.NAME; a killed run resumes from its last checkpoint."""
    if name not in params.policies:
        raise ConfigError(f"params.yaml has no policy {name!r}; it has {', '.join(params.policies)}")
    policy = params.policies[name]
    compute = prepare_compute(params.compute)
    model, tokenizer = load_causal_lm(layout.sft)
    reference = frozen_reference(copy.deepcopy(model))
    generator = torch.Generator().manual_seed(params.seed)
    experts = new_experts(model, policy.experts, policy.architecture.model_dump(), generator)
    weighting = new_weighting(policy.weights, policy.experts, load_context(params, layout, "train"), generator)
    if policy.start:
        base = Base(reference, tokenizer, policy.architecture.model_dump(mode="json"))
        start_from(policy, experts, weighting, base, params, layout)
    train = load_pairs(params, layout, tokenizer, "train", weighting, _strangers(policy))
    validation = load_pairs(params, layout, tokenizer, "validation", weighting)
    work = layout.work(f"train-{name}", _key(params, layout, policy))
    mixture = Mixture(experts, weighting, likelihood_of(policy, params.training))
    setup = Setup(params.training, policy, params.seed, *compute)
    result = train_mixture(mixture, train, validation, setup, checkpoint=work)
    trained = MixturePolicy(
        mixture.experts,
        mixture.weighting,
        reference,
        tokenizer,
        mixture.likelihood,
        policy.latent,
        policy.model_dump(mode="json"),
    )
    trained.cpu().save_pretrained(layout.policy(name))
    write_text(layout.training_curve(name), _curve(result))
    write_json(layout.metrics(f"train-{name}"), _summary(name, policy, result, len(train), train.annotators))
    shutil.rmtree(work, ignore_errors=True)
    return [layout.policy(name), layout.training_curve(name), layout.metrics(f"train-{name}")]


def _strangers(policy: Policy) -> float:
    """Share of training pairs that a gate on annotators sees as from someone it does not know."""
    weights = policy.weights
    return weights.annotators.unknown if weights.kind == "gate" and weights.annotators else 0.0


def likelihood_of(policy: Policy, training: Training) -> Likelihood:
    """β, length normalisation and label noise, as the configuration says."""
    epsilon = policy.noise.epsilon if policy.noise else 0.0
    return Likelihood(policy.betas or training.beta, policy.margins == "token", epsilon)


def _key(params: Params, layout: Layout, policy: Policy) -> str:
    """Digest of everything that the trained weights depend on: values, data, and the code that trains."""
    code = code_digests("objective", "policy", "training")
    return digest(
        [
            policy.model_dump(mode="json"),
            params.training.model_dump(),
            params.seed,
            params.compute.model_dump(),
            cache_key(params, layout),
            start_digests(policy, params, layout),
            code,
        ]
    )


def _curve(result: TrainingResult) -> str:
    # in an order that does not depend on where the rows come from: those of a resumed run were read from JSON
    columns = ["step", *sorted({name for row in result.history for name in row} - {"step"})]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.history)
    return buffer.getvalue()


def _summary(name: str, policy: Policy, result: TrainingResult, pairs: int, annotators: torch.Tensor) -> dict[str, Any]:
    """Means over the last steps, and what the health check found."""
    last = result.history[-LAST_ROWS:]
    figures = {
        column: sum(row[column] for row in last) / len(last)
        for column in last[-1]
        if column not in ("step", "learning_rate", "validation_marginal")
    }
    return {
        "schema": 1,
        "policy": name,
        "experts": policy.experts,
        "weights": policy.weights.kind,
        "latent": policy.latent,
        "steps": len(result.history),
        "pairs": pairs,
        "annotators": len(annotators.unique()),
        "validation_marginal": last[-1]["validation_marginal"],
        "last_steps": figures,
        "findings": [finding._asdict() for finding in result.findings],
    }
