"""Who does what: the experts that a rank holds, and the pairs of a batch that it runs. Pure, equal on every rank."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence

from mixdpo.errors import ConfigError
from mixdpo.policy.tokens import TokenRow


def grid(data: int, experts: int, policy_experts: int) -> tuple[int, int]:
    """Ranks that share the pairs and ranks that share the experts, of data x experts processes, for one policy.

    As many share the experts as were asked for, or fewer where the policy has fewer: one setting holds for all policies
    of a params.yaml, DPO's single expert among them.
    """
    size = data * experts
    rows = max(each for each in range(1, min(experts, policy_experts) + 1) if size % each == 0)
    return size // rows, rows


def expert_spans(experts: int, ranks: int) -> list[range]:
    """The experts that each of some ranks holds: neighbours, at most one more on one rank than on another.

    Raises:
        ConfigError: a rank would hold none.
    """
    if ranks > experts:
        raise ConfigError(
            f"{ranks} ranks cannot share {experts} experts: one without an expert has nothing to do; let up to "
            f"{experts} ranks share them (training.parallel.experts)"
        )
    least, more = divmod(experts, ranks)
    ends = [least * rank + min(rank, more) for rank in range(ranks + 1)]
    return [range(start, end) for start, end in itertools.pairwise(ends)]


def share_out(costs: Sequence[int], ranks: int) -> list[list[int]]:
    """Places of a batch for each rank, so that their costs are about equal: the dearest first, to who has least.

    A share is empty where there are fewer places than ranks; places are in ascending order within a share.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        load, rank = heapq.heappop(loads)
        shares[rank].append(place)
        heapq.heappush(loads, (load + costs[place], rank))
    return [sorted(share) for share in shares]


def pair_cost(chosen: TokenRow, rejected: TokenRow) -> int:
    """Tokens that a body computes for a pair: its prompt runs once."""
    return len(chosen) + len(rejected.completion)


def rows_of(share: Sequence[int], pairs: int) -> list[int]:
    """The chosen rows of a share among those of so many pairs, then the rejected ones."""
    return [*share, *(pairs + place for place in share)]
