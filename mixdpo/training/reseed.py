"""A dead expert gets a new start on what the mixture explains worst (mixtures-fail, row 2)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mixdpo.objective.mixture import group_evidence
from mixdpo.policy.experts import Experts
from mixdpo.training.estep import Assigned

if TYPE_CHECKING:
    from mixdpo.config.options import Reseed

logger = logging.getLogger(__name__)


class Reseeder(nn.Module):
    """Watches how much each expert is used; one that stays unused becomes a copy of the busiest, and is then given the
    worst explained units (annotators or pairs) of each batch for some steps, so that it parts from its source.

    Buffers hold all state, so that a resumed run goes on alike.
    """

    idle: Tensor  # (experts,) steps in a row below the threshold
    helped: Tensor  # (experts,) steps for which an expert is still handed units

    def __init__(self, settings: Reseed, experts: int) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("idle", torch.zeros(experts, dtype=torch.long))
        self.register_buffer("helped", torch.zeros(experts, dtype=torch.long))

    @torch.no_grad()
    def hand_over(self, assigned: Assigned, logits: Tensor) -> Assigned:
        """Give each expert that is being helped 1/K of the units, of those whose best expert explains them worst.

        Several take turns, so that each gets bad ones.
        """
        units, experts = assigned.units.shape
        helped = self.helped.nonzero()[:, 0]
        if not len(helped):
            return assigned
        self.helped[helped] -= 1
        pairs = torch.bincount(assigned.member, minlength=units)
        explained = group_evidence(logits.float(), assigned.member, units) / pairs[:, None]
        worst = explained.max(dim=-1).values.argsort(stable=True)[: len(helped) * max(1, units // experts)]
        takers = helped[torch.arange(len(worst), device=helped.device) % len(helped)]
        beliefs = assigned.units.clone()
        beliefs[worst] = torch.nn.functional.one_hot(takers, experts).to(beliefs)
        chosen = torch.isin(assigned.member, worst)[:, None]
        rows = beliefs[assigned.member]
        return assigned._replace(
            units=beliefs,
            beliefs=torch.where(chosen, rows, assigned.beliefs),
            pairs=torch.where(chosen, rows, assigned.pairs),
        )

    @torch.no_grad()
    def watch(self, assigned: Assigned, experts: Experts, optimizer: Optimizer) -> list[int]:
        """Count idle steps and restart experts that are dead; returns those restarted at this step."""
        usage = assigned.units.mean(dim=0)
        self.idle = torch.where(usage < self.settings.usage, self.idle + 1, 0)
        dead = (self.idle >= self.settings.patience).nonzero()[:, 0].tolist()
        busiest = int(usage.argmax())
        for expert in dead:
            experts.copy_expert(busiest, expert)
            self._forget(experts, expert, optimizer)
            self.idle[expert], self.helped[expert] = 0, self.settings.steps
            logger.warning(
                "expert %d explained less than %.1f%% of the pairs for %d steps: started again as a copy of expert %d, "
                "on what is explained worst",
                expert,
                100 * self.settings.usage,
                self.settings.patience,
                busiest,
            )
        return dead

    def _forget(self, experts: Experts, expert: int, optimizer: Optimizer) -> None:
        """The optimiser's moments belong to what the expert was."""
        for parameter, place in experts.expert_parameters(expert):
            for name, moment in optimizer.state.get(parameter, {}).items():
                if name != "step":
                    (moment if place is None else moment[place]).zero_()
