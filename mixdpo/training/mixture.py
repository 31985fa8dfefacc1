"""What is trained, and what one forward pass over a batch of pairs gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixdpo.objective import implicit_rewards
from mixdpo.policy.experts import Experts
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.weighting import Weighting
from mixdpo.training.pairs import PreferencePairs


class Mixture(nn.Module):
    """The experts, the weights that mix them, and how their margins make a preference likely."""

    def __init__(self, experts: Experts, weighting: Weighting, likelihood: Likelihood) -> None:
        super().__init__()
        self.experts = experts
        self.weighting = weighting
        self.likelihood = likelihood


class Forward(NamedTuple):
    """A batch under all experts."""

    margins: Tensor  # (pairs, experts), nats, β included, before label noise
    log_weights: Tensor  # (pairs, experts), normalised
    chosen_logps: Tensor  # (pairs, experts), nats
    chosen_reference: Tensor  # (pairs,) or (pairs, experts), nats
    chosen_tokens: Tensor  # (pairs,)

    def chosen_change(self) -> Tensor:
        """log π/ρ a token of the chosen completions: (pairs, experts), nats. Likelihood displacement shows here."""
        ratio = implicit_rewards(self.chosen_logps, self.chosen_reference, beta=1.0)
        return ratio / self.chosen_tokens[:, None]


def weigh(mixture: Mixture, pairs: PreferencePairs, places: Sequence[int], logps: Tensor) -> Forward:
    """Margins and log-weights of some pairs whose log-probs are known.

    Args:
        logps: (2·pairs, experts), nats: the chosen rows, then the rejected ones.
    """
    device, index = logps.device, torch.as_tensor(places)
    chosen, rejected = logps.chunk(2)
    chosen_tokens, rejected_tokens = pairs.completion_tokens(places)
    chosen_tokens = chosen_tokens.to(device)
    chosen_reference = pairs.chosen_reference[index].to(device)
    margins = mixture.likelihood.margins(
        chosen,
        rejected,
        chosen_reference,
        pairs.rejected_reference[index].to(device),
        chosen_tokens,
        rejected_tokens.to(device),
    )
    features = pairs.features[index].to(device) if mixture.weighting.needs_features else None
    return Forward(margins, mixture.weighting(features, len(places)), chosen, chosen_reference, chosen_tokens)
