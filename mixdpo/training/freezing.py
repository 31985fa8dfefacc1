"""Experts that stay as they start while others train (reuse of what was trained before)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mixdpo.policy.experts import Experts


@torch.no_grad()
def perturb_others(experts: Experts, stay: Sequence[int], scale: float, generator: torch.Generator) -> None:
    """Break the symmetry with noise on all experts but those that are to stay as they are."""
    kept = [
        (parameter, ... if place is None else place)
        for expert in stay
        for parameter, place in experts.expert_parameters(expert)
    ]
    values = [parameter[place].clone() for parameter, place in kept]
    experts.perturb(scale, generator)
    for (parameter, place), value in zip(kept, values, strict=True):
        parameter[place] = value


def freeze_models(experts: Experts, frozen: Sequence[int]) -> None:
    """Experts that are models of their own stop learning; of others, `Frozen` takes care."""
    for expert in frozen:
        for parameter, place in experts.expert_parameters(expert):
            if place is None:
                parameter.requires_grad_(False)


class Frozen:
    """Keeps experts of one shared architecture exactly as they are.

    They are slices of one parameter, which an optimiser moves as a whole: their gradients are cleared before the step,
    and whatever the step did to them (weight decay) is undone.
    """

    def __init__(self, experts: Experts, frozen: Sequence[int]) -> None:
        self._slices = [
            (parameter, place, parameter[place].detach().clone())
            for expert in frozen
            for parameter, place in experts.expert_parameters(expert)
            if place is not None
        ]

    @torch.no_grad()
    def clear_gradients(self) -> None:
        for parameter, place, _ in self._slices:
            if parameter.grad is not None:
                parameter.grad[place] = 0.0

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, place, value in self._slices:
            parameter[place] = value
