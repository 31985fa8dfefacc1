"""One trunk under heads that ranks share: each of them computes its states for some rows, and all get all.

The trunk runs before the heads and apart from them, once a step on every rank: whatever the heads leave out or run
again in pieces, ranks meet equally often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.tokens import TokenRow, pad
from mixdpo.training.fit import Fit
from mixdpo.training.parallel.exchange import all_gather
from mixdpo.training.parallel.ranks import Ranks
from mixdpo.training.parallel.shares import pair_cost, share_out
from mixdpo.training.states import Key, key_of

if TYPE_CHECKING:
    from mixdpo.training.pairs import PreferencePairs


class _Run(NamedTuple):
    """Rows that went through the trunk together."""

    rows: list[TokenRow]
    states: Tensor  # (completion tokens, width), with what the way back needs or without
    recompute: bool


class SharedStates:
    """States of one batch after another, and the way back of their gradients."""

    def __init__(
        self,
        experts: SharedTrunk,
        pairs: PreferencePairs,
        ranks: Ranks,
        precision: torch.dtype,
        fit: Fit | None = None,
    ) -> None:
        """Args: fit: says how batches go through the trunk; None: whole, and there is no way back."""
        self.experts, self.pairs, self.ranks, self.precision, self.fit = experts, pairs, ranks, precision, fit
        self.learns = fit is not None and any(part.requires_grad for part in experts.trunk.parameters())
        self._runs: list[_Run] = []
        self._shares: list[list[TokenRow]] = []
        self._held: dict[Key, range] = {}
        self._states = torch.empty(0)

    def forward(self, places: Sequence[int]) -> None:
        """Hold the states of these pairs' rows; all ranks of a column ask for the same pairs."""
        pairs, ranks = self.pairs, self.ranks
        shares = share_out([pair_cost(pairs.chosen[place], pairs.rejected[place]) for place in places], ranks.experts)
        self._shares = [pairs.rows([places[place] for place in share]) for share in shares]
        # with fewer pairs than ranks some run one for nothing: all take part in what FSDP gathers
        self._runs = self._through_trunk([places[place] for place in shares[ranks.expert_place]] or places[:1])
        computed = self._by_row([run.states.detach() for run in self._runs])
        first = self._runs[0].states
        # what is not there is of another rank
        own = [computed[key_of(row)] for row in self._shares[ranks.expert_place]]
        flat = torch.cat([first.new_empty(0, first.shape[1]), *own])
        parts = all_gather(flat, (max(self._tokens), first.shape[1]), ranks.experts, ranks.group("experts"))
        states = torch.cat([part[:count] for part, count in zip(parts, self._tokens, strict=True)])
        self._states = states.requires_grad_(self.learns)
        self._held, start = {}, 0
        for row in (row for share in self._shares for row in share):
            self._held[key_of(row)] = range(start, start + len(row.completion))
            start += len(row.completion)

    def __call__(self, rows: Iterable[TokenRow]) -> Tensor:
        """States that predict the completion tokens of some of these rows, in order: (completion tokens, width)."""
        places = [place for row in rows for place in self._held[key_of(row)]]
        return self._states.index_select(0, torch.tensor(places, device=self._states.device))

    def backward(self) -> None:
        """Send what the heads of all ranks of the column made of the states' gradient back through the trunk."""
        if not self.learns:
            return
        ranks, states = self.ranks, self._states
        gradient = torch.zeros_like(states) if states.grad is None else states.grad
        parts = gradient.new_zeros(ranks.experts, max(self._tokens), gradient.shape[1])
        for padded, part in zip(parts, gradient.split(self._tokens), strict=True):
            padded[: len(part)] = part
        own = torch.empty_like(parts[0])
        dist.reduce_scatter_single(own, parts.flatten(0, 1), group=ranks.group("experts"))
        share = self._shares[ranks.expert_place]
        split = own[: self._tokens[ranks.expert_place]].split([len(row.completion) for row in share])
        of_row = {key_of(row): part for row, part in zip(share, split, strict=True)}
        runs, self._runs = self._runs, []
        for run in runs:
            kept = run.states if run.states.requires_grad else self._run(run.rows, True, run.recompute)
            # nothing for a row that is run for nothing, or the second of the same content
            rest = (own.new_zeros(len(row.completion), own.shape[1]) for row in run.rows)
            back = [of_row.pop(key_of(row), zeros) for row, zeros in zip(run.rows, rest, strict=True)]
            kept.backward(torch.cat(back))

    @property
    def _tokens(self) -> list[int]:
        """Completion tokens of each share."""
        return [sum(len(row.completion) for row in share) for share in self._shares]

    def _through_trunk(self, places: Sequence[int]) -> list[_Run]:
        if self.fit is None:
            return [self._passed(list(places), False, False)]
        way = self.fit.way(places, models=1)
        return [
            self._passed([places[place] for place in piece], self.learns and way.whole, way.recompute)
            for piece in way.pieces
        ]

    def _passed(self, places: list[int], keep: bool, recompute: bool) -> _Run:
        rows = self.pairs.rows(places)
        return _Run(rows, self._run(rows, keep, recompute), recompute)

    def _run(self, rows: list[TokenRow], keep: bool, recompute: bool) -> Tensor:
        """States of some rows; with what the way back needs, or without."""
        kind = self.ranks.device.type
        mixed = torch.autocast(kind, torch.bfloat16, enabled=self.precision == torch.bfloat16)
        with torch.set_grad_enabled(keep), mixed:
            return self.experts.completion_states(pad(rows, self.ranks.device), recompute and keep)

    def _by_row(self, states: Iterable[Tensor]) -> dict[Key, Tensor]:
        """The states of each row that this rank ran."""
        found: dict[Key, Tensor] = {}
        for run, part in zip(self._runs, states, strict=True):
            split = part.split([len(row.completion) for row in run.rows])
            found |= {key_of(row): of_row for row, of_row in zip(run.rows, split, strict=True)}
        return found
