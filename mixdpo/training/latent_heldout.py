"""How likely a continuous latent finds held-out pairs: under the prior, and from an annotator's other pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mixdpo.errors import ConfigError
from mixdpo.objective import annotator_log_likelihood
from mixdpo.objective.continuous import normal_points
from mixdpo.policy.continuous import ContinuousPolicy
from mixdpo.policy.latent import Compared, Posterior, fit_posteriors
from mixdpo.policy.tokens import length_sorted_batches
from mixdpo.training.pairs import PreferencePairs

# padded tokens of one forward pass
TOKENS = 8192


def compared_pairs(policy: ContinuousPolicy, pairs: PreferencePairs, places: list[int]) -> Compared:
    """Some pairs under the policy's frozen trunk; the reference's log-probs are those of the cache."""
    index = torch.tensor(places)
    return Compared.under(
        policy.reference,
        [pairs.chosen[place] for place in places],
        [pairs.rejected[place] for place in places],
        (pairs.chosen_reference[index].to(policy.device), pairs.rejected_reference[index].to(policy.device)),
    )


def validation_marginal(policy: ContinuousPolicy, pairs: PreferencePairs, points: int, seed: int = 0) -> float:
    """log p(all preferences of each annotator), z integrated out under N(0, I): nats a pair."""
    logits, log_points = prior_logits(policy, pairs, points, seed)
    return annotator_log_likelihood(logits, log_points, pairs.annotators.to(logits.device)).sum().item() / len(pairs)


@torch.no_grad()
def prior_logits(policy: ContinuousPolicy, pairs: PreferencePairs, points: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Preferences at points of N(0, I), and the points' log-weights: (pairs, points) and (points,).

    The points stand in for experts, so `annotator_log_likelihood` and `leave_one_out_weights` read them.
    """
    z, log_points = normal_points(policy.dimensions, points, torch.Generator().manual_seed(seed))
    z, log_points = z.to(policy.device, torch.float32), log_points.to(policy.device, torch.float32)
    logits = torch.zeros(len(pairs), len(z), device=policy.device)
    for places in length_sorted_batches(pairs.lengths(), TOKENS // 2):
        compared = compared_pairs(policy, pairs, places)
        everyone = z.expand(len(places), -1, -1)
        margins = compared.margins(policy.likelihood, *compared.logps(policy.heads, everyone))
        logits[places] = policy.likelihood.logits(margins)
    return logits, log_points


def leave_some_out(
    policy: ContinuousPolicy,
    pairs: PreferencePairs,
    folds: int,
    *,
    steps: int = 60,
    learning_rate: float = 0.1,
    points: int = 16,
    seed: int = 0,
) -> Tensor:
    """log p of each pair from a posterior that was fitted to the other folds of its annotator: (pairs,), nats.

    Args:
        folds: parts of each annotator's pairs, at least 2. Who has one pair only is predicted from the prior.
        steps, learning_rate, points: as in `ContinuousPolicy.personalise`.
    """
    if folds < 2:
        raise ConfigError(f"{folds} folds: what is left out needs something that is left in; give at least 2")
    result = torch.zeros(len(pairs), device=policy.device)
    for places in _by_annotator(pairs):
        _, member = torch.unique(pairs.annotators[torch.tensor(places)], return_inverse=True)
        fold = _place_within(member) % folds
        for left_out in fold.unique().tolist():
            (seen, who), (held, whose) = (
                ([place for place, inside in zip(places, side.tolist(), strict=True) if inside], member[side])
                for side in (fold != left_out, fold == left_out)
            )
            q = _posteriors(policy, pairs, seen, who, int(member.max()) + 1, steps, learning_rate, points, seed)
            result[held] = _predict(policy, pairs, held, whose, q, points, seed)
    return result


def _posteriors(
    policy: ContinuousPolicy,
    pairs: PreferencePairs,
    places: list[int],
    member: Tensor,
    annotators: int,
    steps: int,
    learning_rate: float,
    points: int,
    seed: int,
) -> Posterior:
    if not places:
        zeros = torch.zeros(annotators, policy.dimensions, device=policy.device)
        return Posterior(zeros, torch.ones_like(zeros))
    compared = compared_pairs(policy, pairs, places)
    member = member.to(policy.device)
    return fit_posteriors(
        compared, member, annotators, policy.heads, policy.likelihood, steps, learning_rate, points, seed
    )


@torch.no_grad()
def _predict(
    policy: ContinuousPolicy,
    pairs: PreferencePairs,
    places: list[int],
    member: Tensor,
    q: Posterior,
    points: int,
    seed: int,
) -> Tensor:
    z, log_points = q.points(points, seed)
    compared = compared_pairs(policy, pairs, places)
    margins = compared.margins(policy.likelihood, *compared.logps(policy.heads, z[member.to(policy.device)]))
    return torch.logsumexp(log_points + F.logsigmoid(policy.likelihood.logits(margins)), dim=-1)


def _by_annotator(pairs: PreferencePairs) -> Iterator[list[int]]:
    """Places of pairs, whole annotators at a time, in parts of about `TOKENS` padded tokens (one at least)."""
    lengths = pairs.lengths()
    chunk: list[int] = []
    for annotator in pairs.annotators.unique():
        own = (pairs.annotators == annotator).nonzero()[:, 0].tolist()
        together = chunk + own
        if chunk and 2 * len(together) * max(lengths[place] for place in together) > TOKENS:
            yield chunk
            together = own
        chunk = together
    if chunk:
        yield chunk


def _place_within(member: Tensor) -> Tensor:
    """Which of its annotator's pairs each one is: 0, 1, … in the order given."""
    counts: dict[int, int] = {}
    places = []
    for code in member.tolist():
        places.append(counts.get(code, 0))
        counts[code] = places[-1] + 1
    return torch.tensor(places)
