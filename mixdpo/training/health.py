"""Has the run quietly become something else? Experts that never part are DPO at K times the price (method.md §5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# margins that differ less than this between experts (nats) explain nothing
EQUAL_SPREAD = 1e-3
# share of the prior's entropy that the pairs must resolve; a relative measure, since large margins that are nearly
# equal between experts (a spread of 0.05 where |margin| is 2) tell no more than small ones
RESOLVED = 0.05
# mean responsibility below which an expert is not in use
DEAD_USAGE = 0.02


class Finding(NamedTuple):
    name: str
    message: str


def diagnose(margins: Tensor, q: Tensor, prior: Tensor) -> list[Finding]:
    """Named findings on held-out pairs after training; an empty list is good health.

    Args:
        margins: (pairs, experts), nats.
        q: (pairs, experts) responsibilities.
        prior: (pairs, experts), what q would be had nobody compared anything.
    """
    if margins.shape[-1] == 1:
        return []
    findings = []
    spread = margins.std(dim=-1, correction=0).mean().item()
    # KL(q ‖ prior), on average the entropy that the pairs took away; unlike H(prior) − H(q) it is never negative
    learned = (torch.special.xlogy(q, q) - torch.special.xlogy(q, prior)).sum(dim=-1).mean().item()
    open_question = torch.special.entr(prior).sum(dim=-1).mean().item()
    if spread < EQUAL_SPREAD:
        findings.append(
            Finding(
                "identical-experts",
                f"the experts have not parted: their margins differ by {spread:.1e} nats, so this mixture is plain "
                f"DPO; set symmetry to noise or partition in params.yaml",
            )
        )
    elif learned < RESOLVED * open_question:
        findings.append(
            Finding(
                "posterior-collapse",
                f"responsibilities stay at the prior: the pairs resolve {learned / open_question:.1%} of which expert "
                f"made them (margins differ by {spread:.2g} nats between experts); use `latent: annotator` with more "
                f"comparisons an annotator, or train longer",
            )
        )
    usage = q.mean(dim=0)
    findings += [
        Finding(
            "dead-expert",
            f"expert {expert} explains {usage[expert].item():.1%} of the pairs; use fewer experts, or another seed "
            f"or symmetry in params.yaml",
        )
        for expert in torch.nonzero(usage < DEAD_USAGE)[:, 0].tolist()
    ]
    return findings
