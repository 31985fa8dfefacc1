"""Mixing weights w_k(x, u): one prior for all, a learned gate, or a heuristic to compare with (method.md §4)."""

from mixdpo.policy.weighting.base import Weighting
from mixdpo.policy.weighting.factory import new_weighting, weighting_from_description
from mixdpo.policy.weighting.gate import Gate
from mixdpo.policy.weighting.heuristics import DomainWeights, RandomWeights
from mixdpo.policy.weighting.prior import PriorWeights

__all__ = [
    "DomainWeights",
    "Gate",
    "PriorWeights",
    "RandomWeights",
    "Weighting",
    "new_weighting",
    "weighting_from_description",
]
