"""Has the run quietly become something else? Experts that never part are DPO at K times the price (method.md §5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# margins that differ less than this between experts (nats) explain nothing
EQUAL_SPREAD = 1e-3
# mean responsibility below which an expert is not in use
DEAD_USAGE = 0.02


class Finding(NamedTuple):
    name: str
    message: str


def diagnose(margins: Tensor, q: Tensor, log_weights: Tensor) -> list[Finding]:
    """Named findings on held-out pairs after training; an empty list is good health.

    Args:
        margins, q, log_weights: (pairs, experts), margins and log-weights in nats.
    """
    experts = margins.shape[-1]
    findings: list[Finding] = []
    if experts == 1:
        return findings
    spread = margins.std(dim=-1, correction=0).mean().item()
    if spread < EQUAL_SPREAD:
        findings.append(
            Finding(
                "identical-experts",
                f"the experts have not parted: their margins differ by {spread:.1e} nats, so this mixture is plain DPO; "
                f"set symmetry to noise or partition in params.yaml",
            )
        )
    elif (q - log_weights.exp()).abs().mean().item() < 0.02:
        findings.append(
            Finding(
                "posterior-collapse",
                "responsibilities stay at the prior: the pairs do not tell which expert made them; use `latent: annotator` "
                "with more comparisons an annotator, or train longer",
            )
        )
    usage = q.mean(dim=0)
    for expert in torch.nonzero(usage < DEAD_USAGE)[:, 0].tolist():
        findings.append(
            Finding(
                "dead-expert",
                f"expert {expert} explains {usage[expert].item():.1%} of the pairs; use fewer experts, or another seed "
                f"or symmetry in params.yaml",
            )
        )
    return findings
