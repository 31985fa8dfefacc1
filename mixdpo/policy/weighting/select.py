"""The same weights over other experts: what growing, splitting and pruning a mixture needs."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixdpo.errors import ConfigError
from mixdpo.policy.weighting.base import Weighting
from mixdpo.policy.weighting.gate import Gate
from mixdpo.policy.weighting.heuristics import RandomWeights
from mixdpo.policy.weighting.prior import PriorWeights


@torch.no_grad()
def select_weights(weighting: Weighting, experts: Sequence[int]) -> Weighting:
    """Weights over these experts in this order: one named twice has its mass split in two, one not named has none.

    What remains is normalised. The weights are new; a floor of a gate is a share of the new number of experts.

    Raises:
        ConfigError: the weights name each expert (kind domain), so they mean nothing over others.
    """
    places = list(experts)
    counts = Counter(places)
    split = torch.tensor([counts[place] for place in places]).log()
    if isinstance(weighting, PriorWeights):
        return PriorWeights(weighting.log_weights[places] - split.to(weighting.log_weights))
    if isinstance(weighting, Gate):
        gate = copy.deepcopy(weighting)
        last = gate.layers[-1]
        assert isinstance(last, nn.Linear)
        gate.layers[-1] = _rows_of(last, places, split)
        return gate
    if isinstance(weighting, RandomWeights):
        return RandomWeights(len(places), weighting.confidence)
    raise ConfigError("weights of kind domain name each expert, so their number cannot change; use another kind")


def _rows_of(layer: nn.Linear, places: list[int], split: Tensor) -> nn.Linear:
    chosen = nn.Linear(layer.in_features, len(places), device=layer.weight.device, dtype=layer.weight.dtype)
    chosen.weight.copy_(layer.weight[places])
    chosen.bias.copy_(layer.bias[places] - split.to(layer.bias))
    return chosen.requires_grad_(layer.weight.requires_grad)
