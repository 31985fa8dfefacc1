"""Weights from a section of params.yaml, and back from what a saved mixture says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mixdpo.errors import DataError, ModelError
from mixdpo.policy.context import Context
from mixdpo.policy.gate_inputs import GateInputs
from mixdpo.policy.weighting.base import Weighting
from mixdpo.policy.weighting.gate import Gate
from mixdpo.policy.weighting.heuristics import DomainWeights, RandomWeights
from mixdpo.policy.weighting.prior import PriorWeights

if TYPE_CHECKING:
    from mixdpo.config import weights as config


def new_weighting(weights: config.Weights, experts: int, context: Context, generator: torch.Generator) -> Weighting:
    """Weights as they are before training: uniform where they learn.

    Args:
        weights: the section of params.yaml.
        context: the training rows, from which a gate takes scales, levels and names.

    Raises:
        DataError: the training rows have no such metadata, domains or annotators.
    """
    if weights.kind == "gate":
        return _new_gate(weights, experts, context, generator)
    if weights.kind == "random":
        return RandomWeights(experts, weights.confidence)
    if weights.kind == "domain":
        _refuse_other_domains(weights.experts, context)
        return DomainWeights(experts, weights.confidence, weights.experts)
    if weights.kind == "fixed" and weights.values is not None:
        return PriorWeights(torch.tensor(weights.values).log())
    return PriorWeights.uniform(experts)


def weighting_from_description(about: Mapping[str, Any], experts: int, tensors: dict[str, Tensor]) -> Weighting:
    """The weights whose `describe()` gave `about` and whose state is `tensors`.

    Raises:
        KeyError, RuntimeError: the two do not belong together.
        ModelError: weights of a kind that this mixdpo does not know.
    """
    weighting: Weighting
    kind = about["kind"]
    if kind == "prior":
        weighting = PriorWeights.uniform(experts)
    elif kind == "gate":
        inputs = GateInputs.from_description(about["inputs"])
        weighting = Gate(inputs, experts, about["hidden"], embedding=about["embedding"], floor=about["floor"])
    elif kind == "random":
        weighting = RandomWeights(experts, about["confidence"])
    elif kind == "domain":
        weighting = DomainWeights(experts, about["confidence"], about["experts"])
    else:
        raise ModelError(f"this mixture has weights of kind {kind!r}, which this mixdpo does not know; update mixdpo")
    weighting.load_state_dict(tensors)
    return weighting


def _new_gate(weights: config.GateWeights, experts: int, context: Context, generator: torch.Generator) -> Gate:
    inputs = GateInputs.fit(weights, context)
    embedding = weights.annotators.width if weights.annotators else 0
    gate = Gate(inputs, experts, weights.hidden, generator, embedding=embedding, floor=weights.floor)
    if weights.prompt:
        gate.standardise(context.prompt_features().float())
    gate.requires_grad_(not weights.frozen)
    return gate


def _refuse_other_domains(table: Mapping[str, int], context: Context) -> None:
    domains = sorted({str(domain) for domain in context.column("domain") if domain is not None})
    if not table.keys() & set(domains):
        there = f"are of {', '.join(domains)}" if domains else "name no domain"
        raise DataError(
            f"weights.experts lists the domains {', '.join(table)}, but the training pairs {there}; list their "
            f"domains, or name the domain column in preferences.source.columns"
        )
