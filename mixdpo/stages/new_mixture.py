"""What `policies.NAME` of params.yaml describes, before it is trained."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from mixdpo.compute import Compute
from mixdpo.config import Params
from mixdpo.config.policy import Policy
from mixdpo.layout import Layout
from mixdpo.policy.base import Base
from mixdpo.policy.experts import Experts
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import experts_of, frozen_reference, load_causal_lm, new_experts
from mixdpo.policy.weighting import new_weighting
from mixdpo.stages.own_references import OwnReferences, reference_sources
from mixdpo.stages.start import start_from
from mixdpo.stages.training_pairs import TrainingPairs
from mixdpo.training import Mixture


class NewMixture(NamedTuple):
    mixture: Mixture
    reference: Experts  # one for all experts, or one an expert
    tokenizer: PreTrainedTokenizerBase
    own: OwnReferences | None  # where it is one an expert
    started: int  # how many experts, the first ones, are trained already


def new_mixture(params: Params, layout: Layout, policy: Policy, compute: Compute, pairs: TrainingPairs) -> NewMixture:
    """Experts equal to their reference, weights that favour nobody, or both as `start` gives them.

    Raises:
        ModelError: references or a start that do not belong to this base.
    """
    generator = torch.Generator().manual_seed(params.seed)
    model, tokenizer = load_causal_lm(layout.sft)
    architecture = policy.architecture.model_dump(mode="json")
    likelihood = Likelihood.of(policy, params.training)
    if policy.references is not None:
        own = OwnReferences(reference_sources(params, layout, policy), tokenizer, compute, layout.reference_stores)
        weighting = new_weighting(policy.weights, policy.experts, pairs.context("train", own), generator)
        return NewMixture(Mixture(experts_of(own.models), weighting, likelihood), own.models, tokenizer, own, 0)
    reference = frozen_reference(copy.deepcopy(model))
    experts = new_experts(model, policy.experts, architecture, generator)
    weighting = new_weighting(policy.weights, policy.experts, pairs.context("train"), generator)
    started = 0
    if policy.start:
        started = start_from(policy, experts, weighting, Base(reference, tokenizer, architecture), params, layout)
    return NewMixture(Mixture(experts, weighting, likelihood), reference, tokenizer, None, started)
