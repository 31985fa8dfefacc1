"""A batch through experts that are spread over ranks, and back.

A rank runs its share of the pairs under its share of the experts. The log-probs of all pairs under all experts are then
gathered, and what follows (E-step, loss, its gradient in the log-probs) every rank computes from them by itself; so all
that travels forward is a number a row and expert, and the states of a trunk where heads on several ranks share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from mixdpo.policy.experts import Experts, SharedTrunk
from mixdpo.policy.tokens import pad
from mixdpo.training.fit import Fit, Way
from mixdpo.training.parallel.exchange import all_gather
from mixdpo.training.parallel.experts import SpreadExperts
from mixdpo.training.parallel.shares import pair_cost, rows_of, share_out
from mixdpo.training.parallel.states import SharedStates
from mixdpo.training.passes import Passes
from mixdpo.training.states import frozen_states

if TYPE_CHECKING:
    # types only: the core runs without pydantic
    from mixdpo.config.training import Training
    from mixdpo.training.pairs import PreferencePairs


class Division:
    """Who runs which pairs of one batch.

    Attributes:
        share: this rank's places in the batch.
        run: the pairs that it runs: its share, or one for nothing, since all take part in what FSDP gathers.
    """

    def __init__(self, experts: SpreadExperts, pairs: PreferencePairs, places: Sequence[int]) -> None:
        self.experts, self.ranks, self.pairs = experts, experts.ranks, len(places)
        costs = [pair_cost(pairs.chosen[place], pairs.rejected[place]) for place in places]
        self.shares = share_out(costs, self.ranks.data)
        self.share = self.shares[self.ranks.data_place]
        self.run = [places[place] for place in self.share or [0]]

    def gather(self, own: Tensor) -> Tensor:
        """From the log-probs of `run` under this rank's experts, those of all pairs under all: (2·pairs, experts)."""
        spans = self.experts.spans
        shape = (2 * max(map(len, self.shares)), max(map(len, spans)))
        parts = all_gather(own.detach()[: 2 * len(self.share)], shape, self.ranks.size)
        logps = own.new_empty(2 * self.pairs, self.experts.experts)
        for row, span in enumerate(spans):
            for column, share in enumerate(self.shares):
                part = parts[self.ranks.at(row, column), : 2 * len(share), : len(span)]
                logps[rows_of(share, self.pairs), span.start : span.stop] = part
        return logps

    def own(self, gradient: Tensor) -> Tensor:
        """This rank's part of the gradient in what `gather` gave; nothing for a pair that is run for nothing."""
        held = self.experts.held
        if not self.share:
            return gradient.new_zeros(2, len(held))
        return gradient[rows_of(self.share, self.pairs), held.start : held.stop]


class SpreadPasses:
    """`training.passes.Passes` over ranks: takes and gives what that takes and gives. All ranks call it alike."""

    def __init__(
        self,
        experts: SpreadExperts,
        pairs: PreferencePairs,
        precision: torch.dtype,
        settings: Training,
        batches: Sequence[Sequence[int]],
    ) -> None:
        """Args: batches: places of the pairs of every step."""
        self.experts, self.pairs, ranks = experts, pairs, experts.ranks
        own, device = experts.own, experts.ranks.device
        runs = [Division(experts, pairs, batch).run for batch in batches]
        rows = pairs.rows(sorted({place for run in runs for place in run}))
        # layers that are spread over ranks must be called equally often by all
        known = None if ranks.shard else frozen_states(own, rows, device, precision)
        make = Together if ranks.shard else Fit
        fit = make(own, pairs, device, precision, settings.memory_gib, states_known=known is not None)
        fit.tell(runs)
        self._trunk = None
        if known is None and isinstance(own, SharedTrunk) and (ranks.shard or ranks.experts > 1):
            self._trunk = SharedStates(own, pairs, ranks, precision, fit)
        self._together = ranks.shard and self._trunk is None
        states = self._trunk or known
        self._own = Passes(own, pairs, fit, settings.tile_tokens, device, precision, states, self._together)

    def forward(self, places: Sequence[int], likely: Tensor | None = None) -> Tensor:
        """As of `Passes`, of all pairs under all experts, on every rank."""
        self._division = Division(self.experts, self.pairs, places)
        if self._trunk is not None:
            self._trunk.forward(self._division.run)
        if likely is not None:
            held = self.experts.held
            likely = likely[self._division.share or [0], held.start : held.stop]
        own = self._own.forward(self._division.run, None if self._together else likely)
        return self._division.gather(own).requires_grad_()

    def backward(self, gradient: Tensor) -> None:
        """As of `Passes`; the gradients of parameters are those of all pairs afterwards.

        Args:
            gradient: equal on all ranks.
        """
        self._own.backward(self._division.own(gradient))
        if self._trunk is not None:
            self._trunk.backward()
        self.experts.sum_gradients()


class Together(Fit):
    """Every batch whole on every rank, since they meet in every layer; layers run twice if any rank needs that."""

    recompute = False

    def tell(self, batches: Sequence[Sequence[int]]) -> None:
        """As of `Fit`; all ranks call it, and agree."""
        ways = [super(Together, self).way(places) for places in batches]
        needed = torch.tensor([any(way.recompute or not way.whole for way in ways)], dtype=torch.int32).to(self.device)
        dist.all_reduce(needed, op=dist.ReduceOp.MAX)
        self.recompute = bool(needed)
        super().tell(batches)

    def way(self, places: Sequence[int], models: int | None = None) -> Way:  # noqa: ARG002
        return Way([list(range(len(places)))], self.recompute)


def passes_of(
    experts: Experts,
    pairs: PreferencePairs,
    device: torch.device,
    precision: torch.dtype,
    settings: Training,
    batches: Sequence[Sequence[int]],
) -> Passes | SpreadPasses:
    """The way of batches through experts wherever they are, and back.

    Args:
        batches: places of the pairs of every step.

    Raises:
        TrainingError: a step does not fit into memory.
    """
    if isinstance(experts, SpreadExperts):
        return SpreadPasses(experts, pairs, precision, settings, batches)
    rows = pairs.rows(sorted({place for batch in batches for place in batch}))
    states = frozen_states(experts, rows, device, precision)
    fit = Fit(experts, pairs, device, precision, settings.memory_gib, states_known=states is not None)
    fit.tell(batches)
    return Passes(experts, pairs, fit, settings.tile_tokens, device, precision, states)


@torch.no_grad()
def log_probs(
    experts: Experts,
    pairs: PreferencePairs,
    places: Sequence[int],
    tile_tokens: int,
    device: torch.device,
    precision: torch.dtype,
) -> Tensor:
    """As `passes_of(…).forward(places)`, with no way back and nothing kept from batch to batch."""
    own, run, known = experts, places, None
    division = None
    if isinstance(experts, SpreadExperts):
        division = Division(experts, pairs, places)
        own, run = experts.own, division.run
        if isinstance(own, SharedTrunk) and experts.ranks.experts > 1:
            known = SharedStates(own, pairs, experts.ranks, precision)
            known.forward(run)
    rows = pairs.rows(run)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        states = {} if known is None else {"states_CD": known(rows)}
        logps: Tensor = own(pad(rows, device), tile_tokens, **states)
    return logps if division is None else division.gather(logps)
