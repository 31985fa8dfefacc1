"""Who says the next token: each row's own expert, or all experts together (method.md §7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.products import HeadProducts
from mixdpo.policy.slots import survivors
from mixdpo.policy.whole_batches import open_decoder

if TYPE_CHECKING:
    from mixdpo.policy.mixture import MixturePolicy

Ready = Mapping[SharedTrunk, HeadProducts]
NewRow = tuple[int, Sequence[int]]  # its number in the whole run, its prompt


class OwnExpert:
    """Each row is written by its own expert; all are of one trunk, so that they share its steps.

    Args:
        authors: (rows,) the expert of each row of the run.
        ready: heads of the trunk.
    """

    def __init__(self, policy: MixturePolicy, authors: Tensor, ready: Ready, slots: int, positions: int) -> None:
        models = list(policy.expert_models.models())
        self.model = models[int(authors[0])][0]
        self.products = ready[self.model]
        self.device = policy.device
        self.head_of_row = [models[author][1] for author in authors.tolist()]
        self.decoder = open_decoder(self.model.trunk, slots, positions)
        self.heads: list[int] = []  # of each place
        self._sort()

    @property
    def room(self) -> int:
        return self.decoder.room

    def step(self, tokens: Tensor, new: Sequence[NewRow]) -> tuple[Tensor, Tensor]:
        """Feed each place its token and take new rows in behind them.

        Returns:
            places (rows,), each once, and the scores of the next token there (rows, vocabulary): log-probs up to a
            constant.
        """
        states_RD = self.decoder.step(tokens, [prompt for _, prompt in new])
        if new:
            self.heads += [self.head_of_row[row] for row, _ in new]
            self._sort()
        return self.places, self.products(states_RD[self.places], self.counts)

    def observe(self, tokens: Tensor) -> None:
        """A row's author does not change with what it wrote."""

    def keep(self, order: Sequence[int]) -> None:
        """Place i is from now on what place order[i] was; the others have ended."""
        self.decoder.keep(order)
        self.heads = [self.heads[place] for place in order]
        self._sort()

    def _sort(self) -> None:
        """Places by expert, so that each head meets its rows together."""
        order = sorted(range(len(self.heads)), key=self.heads.__getitem__)
        self.places = torch.tensor(order, dtype=torch.long, device=self.device)
        self.counts = [self.heads.count(head) for head in range(self.model.experts)]


class TokenMixture:
    """p(y_t | y_<t, x) = Σ_k v_k π_k(y_t | y_<t, x), with v_k ∝ w_k π_k(y_<t | x) updated at each token.

    An expert runs only for the rows that give it weight, so that what sparsity dropped costs nothing.

    Args:
        log_weights: (rows, experts) of the run, normalised.
        ready: heads of the trunks that any row gives weight.
    """

    def __init__(self, policy: MixturePolicy, log_weights: Tensor, ready: Ready, slots: int, positions: int) -> None:
        self.device = policy.device
        self.slots = slots
        self.prior = log_weights.to(policy.device, torch.float32)
        self.takes_part = (log_weights > float("-inf")).tolist()
        self.posterior = self.prior[:0]  # (places, experts)
        experts: dict[SharedTrunk, list[int]] = {model: [] for model in ready}
        for expert, (model, _) in enumerate(policy.expert_models.models()):
            if model in experts:
                experts[model].append(expert)
        self.parts = [Part(model, experts[model], ready[model], slots, positions) for model in experts]

    @property
    def room(self) -> int:
        return min(self.slots - len(self.posterior), *(part.decoder.room for part in self.parts))

    def step(self, tokens: Tensor, new: Sequence[NewRow]) -> tuple[Tensor, Tensor]:
        """See `OwnExpert.step`."""
        places = range(len(self.posterior), len(self.posterior) + len(new))
        arriving = [(place, self.takes_part[row], prompt) for place, (row, prompt) in zip(places, new, strict=True)]
        if new:
            self.posterior = torch.cat([self.posterior, self.prior[[row for row, _ in new]]])
        mixed_RV = self.posterior.new_zeros(len(self.posterior), self.parts[0].model.heads.vocabulary)
        for part in self.parts:
            part.step(tokens, arriving)
            part.add_to(mixed_RV, self.posterior)
        return torch.arange(len(mixed_RV), device=self.device), mixed_RV.log_()

    def observe(self, tokens: Tensor) -> None:
        """Each expert's share grows with how likely it found what was written."""
        for part in self.parts:
            part.add_said(tokens, self.posterior)
        self.posterior = torch.log_softmax(self.posterior, dim=-1)

    def keep(self, order: Sequence[int]) -> None:
        """See `OwnExpert.keep`."""
        self.posterior = self.posterior[list(order)]
        for part in self.parts:
            part.keep(order)


class Part:
    """One trunk of a token mixture: the rows that give any of its experts weight."""

    def __init__(
        self, model: SharedTrunk, experts: Sequence[int], products: HeadProducts, slots: int, positions: int
    ) -> None:
        self.model = model
        self.products = products
        self.experts = experts  # in the order of the trunk's heads
        self.decoder = open_decoder(model.trunk, slots, positions)
        self.places: list[int] = []  # in the batch, of each of its rows
        self.wanted: list[list[bool]] = []  # by each of them, which experts
        self._pair()

    def step(self, tokens: Tensor, arriving: Sequence[tuple[int, Sequence[bool], Sequence[int]]]) -> None:
        """Run the trunk and the wanted heads.

        Args:
            tokens: (rows,) of the batch, new rows left out.
            arriving: of each new row its place, the experts (of all) that take part in it, and its prompt.
        """
        new = [(place, [takes_part[expert] for expert in self.experts], row) for place, takes_part, row in arriving]
        new = [each for each in new if any(each[1])]
        going = tokens[self.place_of_slot]
        if not len(going) and not new:
            return
        states_SD = self.decoder.step(going, [prompt for _, _, prompt in new])
        if new:
            self.places += [place for place, _, _ in new]
            self.wanted += [wanted for _, wanted, _ in new]
            self._pair()
        # pairs of an expert with a row that it takes part in, by expert
        self.logits_PV = self.products(states_SD[self.slot], self.counts)
        self.norm_P = self.logits_PV.logsumexp(dim=-1)

    def add_to(self, mixed_RV: Tensor, posterior_RK: Tensor) -> None:
        """Add v_k π_k(· | y_<t) of its experts to those rows that they take part in."""
        if not self.places:
            return
        shift_P = posterior_RK[self.place, self.expert] - self.norm_P
        pieces = (self.logits_PV, shift_P, self.place)
        for logits, shift, place in zip(*(piece.split(self.counts) for piece in pieces), strict=True):
            mixed_RV.index_add_(0, place, (logits + shift[:, None]).exp_())

    def add_said(self, tokens: Tensor, posterior_RK: Tensor) -> None:
        """Add log π_k of each row's new token to its posterior, which is then no longer normalised."""
        if self.places:
            said_P = self.logits_PV.gather(-1, tokens[self.place, None])[:, 0] - self.norm_P
            posterior_RK[self.place, self.expert] += said_P

    def keep(self, order: Sequence[int]) -> None:
        """See `OwnExpert.keep`; places are the batch's."""
        place_now = {before: place for place, before in enumerate(order)}
        gone = [slot for slot, place in enumerate(self.places) if place not in place_now]
        own = survivors(len(self.places), gone)
        self.decoder.keep(own)
        self.places = [place_now[self.places[slot]] for slot in own]
        self.wanted = [self.wanted[slot] for slot in own]
        self._pair()

    def _pair(self) -> None:
        pairs = [
            (head, slot) for head in range(len(self.experts)) for slot, wanted in enumerate(self.wanted) if wanted[head]
        ]
        heads = [head for head, _ in pairs]
        device = self.model.trunk.device
        self.counts = [heads.count(head) for head in range(len(self.experts))]
        self.expert = torch.tensor([self.experts[head] for head in heads], dtype=torch.long, device=device)
        self.slot = torch.tensor([slot for _, slot in pairs], dtype=torch.long, device=device)
        self.place_of_slot = torch.tensor(self.places, dtype=torch.long, device=device)
        self.place = self.place_of_slot[self.slot]
