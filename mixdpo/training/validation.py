"""The held-out pairs of a run: how likely the mixture finds them, and whether it is in good health."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mixdpo.objective import (
    annotator_log_likelihood,
    leave_one_out_weights,
    log_joint,
    marginal_log_likelihood,
    responsibilities,
)
from mixdpo.objective.mixture import group_prior
from mixdpo.policy.tokens import length_sorted_batches
from mixdpo.training.health import Signs
from mixdpo.training.mixture import Mixture, weigh
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.parallel import log_probs

# padded tokens of one forward pass
TOKENS = 8192


class View(NamedTuple):
    """All held-out pairs under the mixture as it is now, in their order; on the CPU, where all ranks see the same."""

    logits: Tensor  # (pairs, experts): margins after label noise
    log_weights: Tensor  # (pairs, experts)
    chosen_change: Tensor  # (pairs, experts): log π/ρ a token of the chosen completion


@torch.no_grad()
def look(
    mixture: Mixture, pairs: PreferencePairs, tile_tokens: int, device: torch.device, precision: torch.dtype
) -> View:
    """Run the mixture over pairs, longest first, in batches of about `TOKENS` tokens; those of one prompt share it."""
    shape = (len(pairs), mixture.experts.experts)
    logits, log_weights, change = (torch.zeros(shape) for _ in range(3))
    prompts = [tuple(row.prompt) for row in pairs.chosen]
    for places in length_sorted_batches(pairs.lengths(), TOKENS // 2, prompts):
        logps = log_probs(mixture.experts, pairs, places, tile_tokens, device, precision)
        result = weigh(mixture, pairs, places, logps)
        logits[places] = mixture.likelihood.logits(result.margins).cpu()
        log_weights[places] = result.log_weights.cpu()
        change[places] = result.chosen_change().cpu()
    return View(logits, log_weights, change)


def marginal(view: View, groups: Tensor | None) -> float:
    """Log-likelihood of the pairs, nats a pair; with `groups` (pairs,) an annotator's pairs share one expert."""
    if groups is None:
        return marginal_log_likelihood(view.logits, view.log_weights).mean().item()
    return annotator_log_likelihood(view.logits, view.log_weights, groups).sum().item() / len(groups)


def signs(view: View, groups: Tensor | None) -> Signs:
    """What `health.diagnose` judges by."""
    q = responsibilities(view.logits, view.log_weights, groups)
    stranger = marginal_log_likelihood(view.logits, view.log_weights).mean().item()
    if groups is None:
        prior, known = view.log_weights.exp(), stranger
    else:
        unique, member = torch.unique(groups, return_inverse=True)
        prior = group_prior(view.log_weights, member, len(unique)).exp()[member]
        others = leave_one_out_weights(view.logits, view.log_weights, groups)
        known = torch.logsumexp(log_joint(view.logits, others), dim=-1).mean().item()
    return Signs(view.logits, q, prior, known, stranger, (q * view.chosen_change).sum(dim=-1).mean().item())
