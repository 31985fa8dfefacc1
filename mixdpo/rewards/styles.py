"""Annotators with styles: who they are, which prompts they see, which of two completions they prefer (method.md §8).

Pure numpy over one split's candidates. A style's utility of a candidate is the weighted sum of its standardised reward
scores; an annotator compares two completions of one prompt whose utilities are far enough apart, and now and then errs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixdpo.config.data import Annotators, Style
from mixdpo.errors import DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """One split's candidates, rows in any order."""

    prompts: NDArray  # (N,) any codes: completions of one prompt share one
    completions: NDArray  # (N,) any codes: equal texts share one
    domains: NDArray  # (N,) names
    scores: Floats  # (N, dimensions) standardised


class Comparison(NamedTuple):
    """One label: places of the two candidates among `Candidates`."""

    annotator: str
    style: str
    chosen: int
    rejected: int
    gap: float  # |difference in utility|, before any error
    flipped: bool  # the annotator erred: `chosen` has the lower utility


class Pairs(NamedTuple):
    """All pairs that a style can tell apart, the better one first."""

    better: Integers
    worse: Integers
    gaps: Floats


class Pool(NamedTuple):
    """What an annotator of one style draws from: N pairs of P prompts."""

    pairs: Pairs
    by_prompt: Integers  # (N,) places of pairs, those of one prompt together
    starts: Integers  # (P,) where a prompt's places begin there
    sizes: Integers  # (P,) how many it has
    weights: Floats  # (P,) how often the style judges a prompt, relative


def standardisation(scores: Floats, dimensions: Sequence[str]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each dimension, (dimensions,) each, over the training candidates.

    Raises:
        DataError: no candidates, or a dimension on which all are equal.
    """
    if not len(scores):
        raise DataError("there are no scored training candidates; run `mixdpo candidates` and `mixdpo annotate`")
    mean, deviation = scores.mean(axis=0), scores.std(axis=0)
    for name, spread in zip(dimensions, deviation, strict=True):
        if not spread > 1e-9:
            raise DataError(
                f"all training candidates have the same {name} score (spread {spread:g}), so none can be "
                "preferred by it; look at its reward model in metrics/rewards.json, or raise candidates.temperature"
            )
    return mean, deviation


def label_pairs(
    candidates: Candidates,
    dimensions: Sequence[str],
    styles: Mapping[str, Style],
    settings: Annotators,
    split: str,
    generator: np.random.Generator,
    known: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Every comparison of every annotator of this split, `settings.pairs` each, annotator by annotator.

    Args:
        known: annotators of the training split and their styles; `settings.returning` of the test split are among
            them, each with the style it has there.

    Raises:
        DataError: a style cannot find enough pairs; the message says how many there are and what to change.
    """
    count: int = getattr(settings, split)
    counts = shares({name: style.share for name, style in styles.items()}, count)
    # shuffled, so that an annotator's number does not tell the style
    members = generator.permutation([name for name, size in counts.items() for _ in range(size)])
    pools = {
        name: _pool(candidates, dimensions, style, name, settings, split)
        for name, style in styles.items()
        if counts[name]
    }
    annotators = _names(
        members.tolist(), split, round(settings.returning * count) if split == "test" else 0, known or {}
    )
    comparisons = []
    for annotator, name in zip(annotators, members, strict=True):
        pool = pools[str(name)]
        pairs = pool.pairs
        for place in _draw(pool, settings.pairs, generator):
            better, worse = int(pairs.better[place]), int(pairs.worse[place])
            flipped = bool(generator.random() < settings.noise)
            chosen, rejected = (worse, better) if flipped else (better, worse)
            gap = float(pairs.gaps[place])
            comparisons.append(Comparison(annotator, str(name), chosen, rejected, gap, flipped))
    return comparisons


def _names(styles: Sequence[str], split: str, returning: int, known: Mapping[str, str]) -> list[str]:
    """A name for each annotator of these styles; the first `returning` are known ones of their style."""
    width = max(4, len(str(len(styles) - 1)))
    names = [f"{split}-{number:0{width}d}" for number in range(len(styles))]
    idle = {style: [name for name, own in known.items() if own == style] for style in set(styles)}
    for number, style in enumerate(styles[:returning]):
        if not idle[style]:
            raise DataError(
                f"{returning} of {len(styles)} test annotators are to return (preferences.annotators.returning), but "
                f"style {style} has only {sum(own == style for own in known.values())} training annotators; lower it, "
                "or raise preferences.annotators.train"
            )
        names[number] = idle[style].pop(0)
    return names


def shares(weights: Mapping[str, float], count: int) -> dict[str, int]:
    """`count` divided in these proportions, remainders to the largest; equal weights differ by 1 at most.

    >>> shares({"a": 1.0, "b": 1.0, "c": 2.0}, 9)
    {'a': 2, 'b': 2, 'c': 5}
    """
    whole = sum(weights.values())
    exact = {name: count * weight / whole for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], -exact[name]))
    for name in by_remainder[: count - sum(counts.values())]:
        counts[name] += 1
    return counts


def utilities(scores: Floats, dimensions: Sequence[str], style: Style) -> Floats:
    """(N,) of one style, in standard deviations of the scores."""
    weights: Floats = np.array([style.weights.get(name, 0.0) for name in dimensions])
    utility: Floats = scores @ weights
    return utility


def distinguishable_pairs(candidates: Candidates, utility: Floats, min_gap: float) -> Pairs:
    """Pairs of different completions of one prompt, at least `min_gap` (and more than nothing) apart in utility."""
    left, right = _all_pairs(candidates.prompts)
    gaps = utility[left] - utility[right]
    kept = (np.abs(gaps) >= min_gap) & (gaps != 0.0) & (candidates.completions[left] != candidates.completions[right])
    left, right, gaps = left[kept], right[kept], gaps[kept]
    return Pairs(np.where(gaps > 0, left, right), np.where(gaps > 0, right, left), np.abs(gaps))


def _all_pairs(prompts: NDArray) -> tuple[Integers, Integers]:
    """Places of every two rows of one prompt, prompt by prompt."""
    order = np.argsort(prompts, kind="stable")
    _, starts, sizes = np.unique(prompts[order], return_index=True, return_counts=True)
    left, right, owner = [[np.array([], dtype=np.int64)] for _ in range(3)]
    for size in np.unique(sizes):
        owners = np.flatnonzero(sizes == size)
        first, second = np.triu_indices(size, 1)
        left.append((starts[owners, None] + first).ravel())
        right.append((starts[owners, None] + second).ravel())
        owner.append(np.repeat(owners, len(first)))
    again = np.argsort(np.concatenate(owner), kind="stable")
    return order[np.concatenate(left)[again]], order[np.concatenate(right)[again]]


def _pool(
    candidates: Candidates, dimensions: Sequence[str], style: Style, name: str, settings: Annotators, split: str
) -> Pool:
    """The style's pairs, each prompt with the weight of its domain."""
    pairs = distinguishable_pairs(candidates, utilities(candidates.scores, dimensions, style), settings.min_gap)
    weights = np.ones(len(pairs.better))
    if style.domains is not None:
        domains = candidates.domains[pairs.better]
        prompts = candidates.prompts[pairs.better]
        weights = np.zeros(len(domains))
        for domain, share in style.domains.items():
            inside = domains == domain
            if inside.any():
                weights[inside] = share / len(np.unique(prompts[inside]))
        seen = weights > 0.0
        pairs, weights = Pairs(pairs.better[seen], pairs.worse[seen], pairs.gaps[seen]), weights[seen]
    if len(weights) < settings.pairs:
        able = len(np.unique(candidates.prompts[pairs.better]))
        where = "" if style.domains is None else f" in the domains {', '.join(style.domains)}"
        raise DataError(
            f"style {name}: only {len(weights)} pairs of {able} {split} prompts{where} differ by "
            f"preferences.annotators.min_gap {settings.min_gap:g} or more, but each annotator labels "
            f"{settings.pairs} (preferences.annotators.pairs); lower one of the two, or raise candidates.per_prompt "
            f"or candidates.prompts.{split}"
        )
    prompts, index, sizes = np.unique(candidates.prompts[pairs.better], return_inverse=True, return_counts=True)
    prompt_weights = np.zeros(len(prompts))
    prompt_weights[index] = weights
    return Pool(pairs, np.argsort(index, kind="stable"), np.cumsum(sizes) - sizes, sizes, prompt_weights)


def _draw(pool: Pool, count: int, generator: np.random.Generator) -> Iterator[int]:
    """`count` different pairs: prompts at random by weight, none again before all had their turn."""
    # pairs of each prompt in random order; the r-th pair of a prompt comes in round r
    turns = np.empty(len(pool.by_prompt), dtype=np.int64)
    turns[generator.permutation(len(turns))] = np.arange(len(turns))
    drawn = 0
    turn = 0
    while drawn < count:
        able = np.flatnonzero(pool.sizes > turn)
        size = min(count - drawn, len(able))
        chances = pool.weights[able] / pool.weights[able].sum()
        for number in generator.choice(able, size=size, replace=False, p=chances):
            start = pool.starts[number]
            own = pool.by_prompt[start : start + pool.sizes[number]]
            yield int(own[np.argsort(turns[own])[turn]])
        drawn += size
        turn += 1
