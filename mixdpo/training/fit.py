"""How each batch goes through the experts in the memory that there is: whole if it can, else at the price of time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch

from mixdpo.errors import TrainingError
from mixdpo.policy.experts import Experts
from mixdpo.policy.packing import packs
from mixdpo.training.memory import GIB, Needs, free_bytes
from mixdpo.training.pairs import PreferencePairs

logger = logging.getLogger(__name__)

# share of what is free that a step may take: estimates err, and others live on the machine too
USABLE = 0.9
REMEDY = (
    "lower training.max_tokens or `experts`, freeze the trunk or use adapters or low-rank heads, raise "
    "training.memory_gib if it is set, or take a larger machine"
)


class Size(NamedTuple):
    """Tokens of a pair."""

    trunk: int
    completions: int


class Way(NamedTuple):
    """How a batch goes through the experts.

    Attributes:
        pieces: places in the batch of the pairs that go together. One piece: log-probs keep what the way back needs.
            Several: they are run without it first, and again one by one on the way back.
        recompute: whether layers of the trunk are run again on the way back.
    """

    pieces: list[list[int]]
    recompute: bool

    @property
    def whole(self) -> bool:
        return len(self.pieces) == 1


class Fit:
    """Chooses ways that fit.

    Attributes:
        needs: of a step.
        room: bytes beside weights, gradients, moments and what the process takes; None: without bound.
    """

    def __init__(
        self,
        experts: Experts,
        pairs: PreferencePairs,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        memory_gib: float | None = None,
        states_known: bool = False,
    ) -> None:
        """Args:
        memory_gib: the most that training may take, weights, gradients and moments included; None: what is free.
        states_known: the trunk is not run.

        Raises:
            TrainingError: weights, gradients and moments alone are more than there is.
        """
        self.pairs, self.device = pairs, device
        self.needs = Needs.of(experts, precision)
        self.trunk_runs = not states_known
        # a padded body runs every row at the length of the longest
        self.longest = 0 if packs(next(experts.models())[0].trunk) else max(pairs.lengths())
        self.room = self._room(device, memory_gib)

    def size(self, place: int) -> Size:
        """Tokens of a pair: its prompt runs once."""
        chosen, rejected = self.pairs.chosen[place], self.pairs.rejected[place]
        completions = len(chosen.completion) + len(rejected.completion)
        if not self.trunk_runs:
            return Size(0, completions)
        return Size(2 * self.longest or len(chosen.prompt) + completions, completions)

    def way(self, places: Sequence[int], models: int | None = None) -> Way:
        """The quickest way of these pairs that fits.

        Args:
            models: that keep what the way back needs at one time; None: all.

        Raises:
            TrainingError: not even one pair by itself fits.
        """
        sizes = [self.size(place) for place in places]
        models = self.needs.models if models is None else models
        everything = list(range(len(places)))
        for recompute in (False, True):
            if self._fits(sizes, recompute, models):
                return Way([everything], recompute)
        for recompute in (False, True):
            if all(self._fits([size], recompute, 1) for size in sizes):
                return Way(self._pieces(sizes, recompute), recompute)
        largest = max(everything, key=lambda place: sizes[place])
        needed = self.needs.passing(*sizes[largest], recompute=True, models=1)
        raise TrainingError(
            f"pair {self.pairs.ids[places[largest]][:16]} has {sizes[largest].trunk} tokens and needs "
            f"{needed / GIB:.3f} GiB in a step by itself, but {(self.room or 0) / GIB:.3f} GiB are there beside "
            f"weights, gradients and moments ({self._fixed() / GIB:.3f} GiB): {REMEDY}"
        )

    def whole(self, places: Sequence[int]) -> int:
        """Bytes beside weights, gradients and moments that a step on these pairs takes if they go whole."""
        return self.needs.process + self._passing([self.size(place) for place in places], False, self.needs.models)

    def tell(self, batches: Sequence[Sequence[int]]) -> None:
        """Say what steps need, what there is and what follows from that; raises as `way` does."""
        ways = [self.way(places) for places in batches]
        peak = max(map(self.whole, batches), default=0)
        room = None if self.room is None else self.room + self.needs.process
        again, cut = (
            sum(1 for way in ways if chosen(way)) for chosen in (lambda w: w.recompute, lambda w: not w.whole)
        )
        logger.info(
            "a step needs up to %.2f GiB: weights %.2f, gradients and moments %.2f, libraries and what a batch leaves "
            "for the way back %.2f; %s. %s",
            (self._fixed() + peak) / GIB,
            self.needs.weights / GIB,
            self.needs.learning / GIB,
            peak / GIB,
            "how much is free is not known" if room is None else f"there is room for {room / GIB:.2f} of the last",
            f"Of {len(ways)} steps {cut} go in pieces and {again} run layers twice, to fit"
            if cut or again
            else "Every step goes whole",
        )

    def _room(self, device: torch.device, memory_gib: float | None) -> int | None:
        free = free_bytes(device)
        found = [] if free is None else [round(USABLE * free) - self.needs.learning - self.needs.process]
        if memory_gib is not None:
            found.append(round(memory_gib * GIB) - self._fixed() - self.needs.process)
        room = min(found, default=None)
        if room is not None and room <= 0:
            raise TrainingError(
                f"weights ({self.needs.weights / GIB:.3f} GiB), gradients and moments "
                f"({self.needs.learning / GIB:.3f} GiB) and libraries ({self.needs.process / GIB:.3f} GiB) leave no "
                f"room for a step: {REMEDY}"
            )
        return room

    def _fixed(self) -> int:
        return self.needs.weights + self.needs.learning

    def _passing(self, sizes: Sequence[Size], recompute: bool, models: int) -> int:
        tokens, completions = (sum(column) for column in zip(*sizes, strict=True))
        return self.needs.passing(tokens, completions, recompute, models)

    def _fits(self, sizes: Sequence[Size], recompute: bool, models: int) -> bool:
        return self.room is None or self._passing(sizes, recompute, models) <= self.room

    def _pieces(self, sizes: Sequence[Size], recompute: bool) -> list[list[int]]:
        """Neighbours together, as many as fit."""
        pieces: list[list[int]] = [[]]
        for place, size in enumerate(sizes):
            if pieces[-1] and not self._fits([*(sizes[other] for other in pieces[-1]), size], recompute, 1):
                pieces.append([])
            pieces[-1].append(place)
        return pieces
