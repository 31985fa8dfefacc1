"""The E-step of a run: who is responsible for which pair, and what may stand in for the exact posterior (§3 to §6).

A unit is what shares one expert: a pair, or an annotator with all pairs of theirs that are in the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mixdpo.errors import TrainingError
from mixdpo.objective import gumbel_softmax, top_experts
from mixdpo.objective.mixture import group_evidence, group_prior, log_joint
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.schedule import anneal

if TYPE_CHECKING:
    from mixdpo.config.estep import Tempering
    from mixdpo.config.policy import Policy

NOT_GIVEN = -1
# share of pairs and experts without responsibility from which on fewer are expected to have some
SPARSE = 0.5


class Assigned(NamedTuple):
    """Responsibilities of one batch."""

    pairs: Tensor  # (pairs, experts): what weighs the experts' losses
    beliefs: Tensor  # (pairs, experts): before relaxation and sparsity; what a gate learns
    units: Tensor  # (units, experts): beliefs, one row for each draw of the latent; what a global prior learns
    member: Tensor  # (pairs,) the unit of each pair
    dropped: float  # responsibility of experts outside the top, mean over units; 0 where none is dropped


class EStep(nn.Module):
    """Responsibilities of each batch, as the policy's options say.

    Attributes:
        evidence: (annotators, experts), nats: what is carried of annotators whose pairs do not fit into one batch.
        given: (units,) the expert that a unit is given instead of its posterior, −1 for none.
    """

    annotators: Tensor  # (pairs,) codes
    sizes: Tensor  # (annotators,) how many pairs each has
    evidence: Tensor | None
    given: Tensor
    skipped: Tensor  # () share of pairs and experts without responsibility at the last step

    def __init__(
        self, policy: Policy, tempering: Tempering, pairs: PreferencePairs, experts: int, batch_pairs: int, seed: int
    ) -> None:
        super().__init__()
        self.policy, self.tempering, self.experts, self.seed = policy, tempering, experts, seed
        self.handed: Tensor | None = None
        self.handed_until = 0
        self.by_annotator = policy.latent == "annotator"
        self.register_buffer("annotators", pairs.annotators, persistent=False)
        sizes = torch.bincount(pairs.annotators)
        self.register_buffer("sizes", sizes, persistent=False)
        carries = self.by_annotator and policy.carry > 0 and int(sizes.max()) > batch_pairs
        self.register_buffer("evidence", torch.zeros(len(sizes), experts) if carries else None)
        units = len(sizes) if self.by_annotator else len(pairs)
        self.register_buffer("given", _given(policy, units, experts, pairs, seed), persistent=False)
        self.register_buffer("skipped", torch.tensor(0.0))
        self.given_steps = policy.symmetry.steps if policy.symmetry.kind == "partition" else None

    def go_on(self, given: Tensor | None, until: int) -> None:
        """Give units to experts at the steps before `until`, in place of a partition; anchors stay as they are.

        Args:
            given: (units,), −1 for none.
        """
        if self.policy.symmetry.kind == "partition":
            self.given.fill_(NOT_GIVEN)
        self.handed, self.handed_until = given, until

    def expected(self, step: int, places: list[int]) -> Tensor:
        """Which experts may well be responsible, before log-probs are known: (pairs, experts).

        All, or none where most had no responsibility at the last step: then it pays to find out first.
        """
        given = self._given_rows(step, self._units(places), self.experts) > 0
        return torch.where(given.any(dim=-1, keepdim=True), given, self.skipped < SPARSE)

    @torch.no_grad()
    def forward(self, step: int, places: list[int], logits: Tensor, log_weights: Tensor) -> Assigned:
        """E-step of one batch.

        Args:
            logits: (pairs, experts): margins after label noise (`Likelihood.logits`).
            log_weights: (pairs, experts), normalised.
        """
        joint, member, unit = self._joint(self._units(places), logits.float(), log_weights.float())
        temperature = anneal(step, self.tempering.start, 1.0, self.tempering.steps, self.tempering.shape)
        beliefs = torch.softmax(joint / temperature, dim=-1)
        sparsity, dropped = self.policy.sparsity, 0.0
        given = self._given_rows(step, unit, beliefs.shape[-1])
        beliefs = torch.where(given.any(dim=-1, keepdim=True), given, beliefs)
        q = beliefs
        if self.policy.relaxation is not None:
            q = torch.where(given.any(dim=-1, keepdim=True), given, self._relaxed(step, beliefs))
        if sparsity is not None:
            if sparsity.by == "responsibilities":
                kept = top_experts(q.log(), sparsity.top)[0] > float("-inf")
            else:
                prior = self._prior(log_weights.float(), member, len(q))
                # ties are kept: a gate that has not learned yet is no reason to leave the last experts out for ever
                kept = prior >= prior.topk(sparsity.top).values[:, -1:]
            mass = torch.where(kept, q, 0.0)
            dropped = 1.0 - mass.sum(dim=-1).mean().item()
            # where the top by weight holds nothing of q, q stays: there is nothing to renormalise
            q = torch.where(mass.sum(dim=-1, keepdim=True) > 0, mass / mass.sum(dim=-1, keepdim=True), q)
        return Assigned(q[member], beliefs[member], beliefs, member, dropped)

    def _units(self, places: list[int]) -> Tensor:
        index = torch.tensor(places, device=self.annotators.device)
        return self.annotators[index] if self.by_annotator else index

    def _joint(self, units: Tensor, logits: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log w + log-likelihood of each unit (units, experts), the unit row of each pair, the units' codes."""
        if not self.by_annotator:
            return log_joint(logits, log_weights), torch.arange(len(units), device=units.device), units
        unique, member = torch.unique(units, return_inverse=True)
        evidence = group_evidence(logits, member, len(unique))
        if self.evidence is not None:
            evidence = self._carry(unique, member, evidence)
        return self._prior(log_weights, member, len(unique)) + evidence, member, unique

    def _prior(self, log_weights: Tensor, member: Tensor, units: int) -> Tensor:
        return group_prior(log_weights, member, units) if self.by_annotator else log_weights

    def _carry(self, unique: Tensor, member: Tensor, seen: Tensor) -> Tensor:
        """Evidence on whole annotators from the parts seen so far: E ← carry · (1 − n_batch/n) E + Σ_batch log σ(m).

        Stochastic variational inference with the step size n_batch/n: in expectation E settles at all n pairs' worth,
        of which old parts fade as the experts move on. Who is in the batch whole has a step size of 1 and no memory.
        """
        assert self.evidence is not None
        share = torch.bincount(member, minlength=len(unique)) / self.sizes[unique]
        total = self.policy.carry * (1 - share)[:, None] * self.evidence[unique] + seen
        self.evidence[unique] = total
        return total

    def _given_rows(self, step: int, units: Tensor, experts: int) -> Tensor:
        """(units, experts): one-hot where the expert is given at this step, zeros elsewhere."""
        given = self.given[units]
        if self.given_steps is not None and step >= self.given_steps:
            given = torch.full_like(given, NOT_GIVEN)
        if self.handed is not None and step < self.handed_until:
            given = torch.where(given == NOT_GIVEN, self.handed.to(given.device)[units], given)
        return (given[:, None] == torch.arange(experts, device=given.device)).float()

    def _relaxed(self, step: int, beliefs: Tensor) -> Tensor:
        relaxation = self.policy.relaxation
        assert relaxation is not None
        temperature = anneal(step, relaxation.start, relaxation.floor, relaxation.steps, relaxation.shape)
        # a function of (seed, step): a resumed run draws what an uninterrupted one would have drawn
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return gumbel_softmax(beliefs, temperature, relaxation.straight_through, generator)


def _given(policy: Policy, units: int, experts: int, pairs: PreferencePairs, seed: int) -> Tensor:
    """The expert of each unit that symmetry breaking gives, −1 for none: (units,)."""
    symmetry = policy.symmetry
    if symmetry.kind == "partition":
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(experts, (units,), generator=generator)
    given = torch.full((units,), NOT_GIVEN)
    if symmetry.kind == "anchors":
        code = {name: place for place, name in enumerate(pairs.annotator_names)}
        if missing := sorted(symmetry.annotators.keys() - code.keys()):
            raise TrainingError(
                f"symmetry.annotators names {', '.join(missing[:3])}, who compared nothing in the training split; name "
                f"annotators that did"
            )
        for name, expert in symmetry.annotators.items():
            given[code[name]] = expert
    return given
