"""Completions of held-out prompts by every expert of a policy, with what the policy and the reference think of them.

R rows (a prompt, once for each sample of it), K experts of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixdpo.config.models import Candidates
from mixdpo.data.schema import unit_hash
from mixdpo.evaluation.statistics import Floats

if TYPE_CHECKING:
    from mixdpo.policy import MixturePolicy


@dataclass(frozen=True)
class Prompts:
    """Held-out prompts, each `samples` times in a row; all lists have R entries."""

    ids: list[str]
    texts: list[str]
    domains: list[str]
    samples: int

    @classmethod
    def repeated(cls, prompts: Sequence[dict[str, Any]], samples: int) -> Prompts:
        """From rows with prompt_id, prompt and domain."""
        rows = [prompt for prompt in prompts for _ in range(samples)]
        return cls(
            [row["prompt_id"] for row in rows],
            [row["prompt"] for row in rows],
            [row["domain"] or "" for row in rows],
            samples,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """(R,) integer ids of prompts, in the order of their names: what statistics take as clusters."""
        return np.unique(np.array(self.ids), return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Samples:
    """What one policy wrote.

    Attributes:
        weights: (R, K) mixing weights for each row's prompt.
        completions, finished: one list of R for each expert.
        logps: (R, K, K): [r, k, j] is log π_j of what expert k wrote, nats.
        reference_logps: (R, K): log ρ of what expert k wrote, nats; of its own ρ where each expert has one.
        scores: role → dimension → (R, K), filled in once the reward models have read them.
    """

    policy: str
    weights: Floats
    completions: list[list[str]]
    finished: list[list[bool]]
    logps: Floats
    reference_logps: Floats
    scores: dict[str, dict[str, Floats]] = field(default_factory=dict)

    @property
    def experts(self) -> int:
        return len(self.completions)

    def mixture(self, values: Floats) -> Floats:
        """Expectation over the expert, Σ_k w_k(x) v_k, of (R, K) values: (R,).

        Exact, because a sequence is drawn from one expert and w depends on the prompt alone (method.md §7).
        """
        return np.asarray((self.weights * values).sum(axis=1))


def sampling_seed(seed: int) -> int:
    """Evaluation draws from its own stream, the same for all policies: what they share cancels in differences."""
    return int(unit_hash(str(seed), "evaluation") * 2**31)


def draw(
    name: str, policy: MixturePolicy, prompts: Prompts, settings: Candidates, seed: int, first: int = 0
) -> Samples:
    """Let every expert of `policy` complete every prompt, `settings.batch` rows at once.

    Args:
        first: place of the first prompt among all that are asked; a row's draws depend on its place and the seed alone.
    """
    completions, finished, logps, reference = [], [], [], []
    for expert in range(policy.experts):
        written = policy.generate(
            prompts.texts,
            expert=expert,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed,
            batch=settings.batch,
            first=first,
        )
        # a completion that decodes to nothing has no token to score but its end
        ends = [end or not text for text, end in zip(written.texts, written.finished, strict=True)]
        completions.append(written.texts)
        finished.append(ends)
        logps.append(policy.logps(prompts.texts, written.texts, ends).double().cpu().numpy())
        under_reference = policy.reference_logps(prompts.texts, written.texts, ends)
        own = under_reference if under_reference.dim() == 1 else under_reference[:, expert]
        reference.append(own.double().cpu().numpy())
    metadata = {"domain": prompts.domains} if "domain" in policy.weighting.columns else None
    return Samples(
        policy=name,
        weights=policy.weights(prompts.texts, metadata=metadata).double().cpu().numpy(),
        completions=completions,
        finished=finished,
        logps=np.stack(logps, axis=1),
        reference_logps=np.stack(reference, axis=1),
    )
