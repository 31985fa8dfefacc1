"""Has the run quietly become something else? Diagnoses on held-out pairs, each with its remedy (mixtures-fail)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# margins that differ less than this between experts (nats) explain nothing
EQUAL_SPREAD = 1e-3
# share of the prior's entropy that the pairs must resolve; a relative measure, since large margins that are nearly
# equal between experts (a spread of 0.05 where |margin| is 2) tell no more than small ones
RESOLVED = 0.05
# mean responsibility below which an expert is not in use, and above which it is the only one
DEAD_USAGE = 0.02
COLLAPSED_USAGE = 0.95
# responsibilities with less entropy than this share of log K are sharp; if they then predict an annotator's next label
# worse (nats) than the prior does, they were sharp too soon
SHARP = 0.7
HARMFUL = 0.01
# nats a pair by which held-out predictions may be worse than a coin's before that is no chance
WORSE = 0.02
# nats a token by which experts may forget the chosen completions
DISPLACED = 0.5


class Finding(NamedTuple):
    name: str
    message: str


class Signs(NamedTuple):
    """What the held-out pairs show."""

    margins: Tensor  # (pairs, experts), nats
    q: Tensor  # (pairs, experts) responsibilities
    prior: Tensor  # (pairs, experts), what q would be had nobody compared anything
    known: float  # nats a pair, each predicted from its annotator's other pairs
    stranger: float  # nats a pair, predicted from the prior
    chosen_change: float  # nats a token: log π/ρ of the chosen completions under those responsible for them


def diagnose(signs: Signs) -> list[Finding]:
    """Named findings; an empty list is good health."""
    findings = [*_overfitting(signs)]
    if signs.margins.shape[-1] > 1:
        findings += [*_latent_unused(signs), *_usage(signs), *_too_sharp(signs)]
    return findings


def _overfitting(signs: Signs) -> Iterator[Finding]:
    if signs.chosen_change < -DISPLACED:
        yield Finding(
            "likelihood-displacement",
            f"the experts find the completions that people chose {-signs.chosen_change:.2f} nats a token less likely "
            f"than the reference does: both sides of the pairs fall; set `nll` of this policy (0.1 is a start), or "
            f"raise training.beta",
        )
    if signs.known < -math.log(2) - WORSE:
        yield Finding(
            "worse-than-chance",
            f"held-out preferences are predicted at {signs.known:.3f} nats a pair, below a coin's {-math.log(2):.3f}: "
            f"the pairs were memorised; use more different pairs, a frozen trunk, fewer epochs or a larger "
            f"training.beta",
        )


def _latent_unused(signs: Signs) -> Iterator[Finding]:
    q, prior = signs.q, signs.prior
    spread = signs.margins.std(dim=-1, correction=0).mean().item()
    # KL(q ‖ prior), on average the entropy that the pairs took away; unlike H(prior) − H(q) it is never negative
    learned = (torch.special.xlogy(q, q) - torch.special.xlogy(q, prior)).sum(dim=-1).mean().item()
    open_question = torch.special.entr(prior).sum(dim=-1).mean().item()
    if spread < EQUAL_SPREAD:
        yield Finding(
            "identical-experts",
            f"the experts have not parted: their margins differ by {spread:.1e} nats, so this mixture is plain "
            f"DPO; set symmetry to noise or partition in params.yaml",
        )
    elif learned < RESOLVED * open_question:
        yield Finding(
            "posterior-collapse",
            f"responsibilities stay at the prior: the pairs resolve {learned / open_question:.1%} of which expert "
            f"made them (margins differ by {spread:.2g} nats between experts); use `latent: annotator` with more "
            f"comparisons an annotator, or train longer",
        )


def _usage(signs: Signs) -> Iterator[Finding]:
    usage = signs.q.mean(dim=0)
    if usage.max() > COLLAPSED_USAGE:
        yield Finding(
            "expert-collapse",
            f"expert {int(usage.argmax())} explains {usage.max().item():.1%} of the pairs: the others learn nothing; "
            f"use a prior that keeps them in use (weights of kind global with alpha 2, a gate's `balance` or `floor`), "
            f"`reseed`, or fewer experts",
        )
        return
    for expert in torch.nonzero(usage < DEAD_USAGE)[:, 0].tolist():
        yield Finding(
            "dead-expert",
            f"expert {expert} explains {usage[expert].item():.1%} of the pairs; set `reseed` of this policy, use fewer "
            f"experts, or another seed or symmetry in params.yaml",
        )


def _too_sharp(signs: Signs) -> Iterator[Finding]:
    entropy = torch.special.entr(signs.q).sum(dim=-1).mean().item() / math.log(signs.q.shape[-1])
    if entropy < SHARP and signs.known < signs.stranger - HARMFUL:
        yield Finding(
            "early-sharpening",
            f"responsibilities are sharper than they are right: an annotator's other pairs predict a pair at "
            f"{signs.known:.3f} nats, the prior alone at {signs.stranger:.3f}; start training.tempering above 1 (4 is "
            f"usual), or lower training.learning_rate",
        )
