"""From log-probs to how likely an annotator is to prefer the chosen completion: β, length, label noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mixdpo.objective import noisy_margins, preference_margins

if TYPE_CHECKING:
    from mixdpo.config.policy import Policy
    from mixdpo.config.training import Training


class Likelihood(nn.Module):
    """p(y⁺ ≻ y⁻ | expert k) = (1−ε) σ(m_k) + ε σ(−m_k), with m_k = β_k · difference of log-ratios (method.md §6).

    Attributes:
        per_token: log-ratios are a token's mean, not a completion's sum, so long completions weigh no more.
    """

    beta: Tensor  # (1,) or (experts,)
    epsilon: Tensor  # (), in [0, ½)

    def __init__(self, beta: float | Sequence[float], per_token: bool = False, epsilon: float = 0.0) -> None:
        super().__init__()
        betas = [beta] if isinstance(beta, float | int) else beta
        self.register_buffer("beta", torch.tensor(betas, dtype=torch.float32))
        self.register_buffer("epsilon", torch.tensor(epsilon, dtype=torch.float32))
        self.per_token = per_token
        self.noisy = epsilon > 0

    @classmethod
    def of(cls, policy: Policy, training: Training) -> Likelihood:
        """As the configuration says."""
        epsilon = policy.noise.epsilon if policy.noise else 0.0
        return cls(policy.betas or training.beta, policy.margins == "token", epsilon)

    def margins(
        self,
        chosen_logps: Tensor,
        rejected_logps: Tensor,
        chosen_reference: Tensor,
        rejected_reference: Tensor,
        chosen_tokens: Tensor,
        rejected_tokens: Tensor,
    ) -> Tensor:
        """m_k: (pairs, experts), nats, β included.

        Args:
            chosen_logps, rejected_logps: (pairs, experts), summed over completion tokens.
            chosen_reference, rejected_reference: (pairs,) or (pairs, experts).
            chosen_tokens, rejected_tokens: (pairs,) completion tokens, used where `per_token`.
        """
        lengths = (chosen_tokens, rejected_tokens) if self.per_token else None
        return preference_margins(
            chosen_logps, rejected_logps, chosen_reference, rejected_reference, self.beta, lengths
        )

    def logits(self, margins: Tensor) -> Tensor:
        """Log-odds that expert k's annotator says `chosen`: the margins, or less where labels are noisy."""
        return noisy_margins(margins, self.epsilon) if self.noisy else margins

    def describe(self) -> dict[str, Any]:
        """The arguments that make this likelihood again."""
        return {
            "beta": self.beta.tolist(),
            "per_token": self.per_token,
            "epsilon": self.epsilon.item(),
        }
