"""How many experts? Held-out evidence decides: split one, train on, keep the split where it pays, prune at the end.

A split is judged against the same mixture after as many steps without it, so that K does not grow where only training
was too short.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mixdpo.objective import responsibilities
from mixdpo.policy.weighting.select import select_weights
from mixdpo.training.estep import NOT_GIVEN
from mixdpo.training.health import Finding, diagnose
from mixdpo.training.mixture import Mixture
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.parallel import load_whole, save_whole, spread, told_state
from mixdpo.training.run import Continuation, Row, Setup
from mixdpo.training.trainer import TrainingResult, train_mixture
from mixdpo.training.validation import View, look, marginal, signs

logger = logging.getLogger(__name__)

# experts that are tried, the least explaining first, before a mixture counts as large enough
TRIES = 2
# share of a split's steps for which both halves of the parent's annotators are given their expert
GIVEN = 0.25
NO_PARENT = -1


def grow_mixture(
    mixture: Mixture,
    train: PreferencePairs,
    validation: PreferencePairs,
    setup: Setup,
    checkpoint: Path | None = None,
) -> TrainingResult:
    """Train a mixture in place, then let it grow as `setup.policy.growth` says.

    Args: as in `train_mixture`; `mixture` has the number of experts to start with.

    Returns:
        History of the phases that were kept; rows say how many `experts` there were. `growth` has a row for each try:
        `experts`, `parent` (−1 where none was split), `validation_marginal` and whether it was `kept`.

    Raises:
        TrainingError: as `train_mixture`.
    """
    run = _Growth(train, validation, setup, checkpoint)
    run.start(mixture)
    while run.size < run.most and run.split():
        pass
    run.prune()
    mixture.experts, mixture.weighting = run.mixture.experts, run.mixture.weighting
    mixture.likelihood = run.mixture.likelihood
    return run.result


class _Attempt(NamedTuple):
    mixture: Mixture
    phase: TrainingResult
    evidence: float  # nats a validation pair
    row: Row  # in the result's `growth`


class _Growth:
    """The mixture as it is now, and how it came to be."""

    mixture: Mixture
    result: TrainingResult

    def __init__(
        self, train: PreferencePairs, validation: PreferencePairs, setup: Setup, checkpoint: Path | None
    ) -> None:
        assert setup.policy.growth is not None
        self.settings = setup.policy.growth
        self.train, self.validation, self.setup, self.checkpoint = train, validation, setup, checkpoint
        self.by_annotator = setup.policy.latent == "annotator"
        self.units = train.annotators if self.by_annotator else torch.arange(len(train))
        # an expert needs someone to explain
        self.most = min(self.settings.most, len(self.units.unique()))

    @property
    def size(self) -> int:
        return self.mixture.experts.experts

    @property
    def evidence(self) -> float:
        """Log-likelihood of the validation pairs, nats a pair."""
        return self.result.history[-1]["validation_marginal"]

    def start(self, mixture: Mixture) -> None:
        phase = self._phase("start", mixture, None)
        self.mixture, self.result = mixture, dataclasses.replace(phase, history=_sized(phase.history, mixture, 0))
        self._record(self.size, NO_PARENT, self.evidence)["kept"] = 1.0

    def split(self) -> bool:
        """Try to add one expert; whether it paid. Where none did, what was trained on without a split may stay."""
        view, everyone = self._look(self.train), list(range(self.size))
        done = len(self.result.history)
        without = self._attempt(f"{self.size}-on", everyone, NO_PARENT, Continuation(done))
        bar = max(self.evidence, without.evidence)
        steps = max(1, round(GIVEN * self.settings.steps))
        for parent in self._by_need(view)[:TRIES]:
            after = Continuation(done, self._halves(view, parent), steps)
            grown = self._attempt(f"{self.size + 1}-of-{parent}", [*everyone, parent], parent, after)
            pays = grown.evidence > bar + self.settings.gain
            logger.info(
                "%d experts by a split of expert %d: %.4f nats a validation pair, %.4f without it: %s",
                self.size + 1,
                parent,
                grown.evidence,
                bar,
                "kept" if pays else "not kept",
            )
            if pays:
                self._keep(grown)
                return True
        if without.evidence > self.evidence:
            self._keep(without)
        return False

    def prune(self) -> None:
        """Remove experts that explain too little of the training pairs; the others stay as they are."""
        usage = self._responsible(self._look(self.train)).mean(dim=0)
        least = self.setup.policy.sparsity.top if self.setup.policy.sparsity else 1
        by_usage = usage.argsort(descending=True, stable=True).tolist()
        stay = sorted(
            expert for place, expert in enumerate(by_usage) if place < least or usage[expert] >= self.settings.prune
        )
        if len(stay) == self.size:
            return
        logger.info("pruned %d of %d experts", self.size - len(stay), self.size)
        self.mixture = _branch(self.mixture, stay)
        view, groups = self._look(self.validation), self._groups(self.validation)
        last = self.result.history[-1] | {"experts": len(stay), "validation_marginal": marginal(view, groups)}
        findings = diagnose(signs(view, groups))
        self.result = dataclasses.replace(self.result, history=[*self.result.history[:-1], last], findings=findings)
        self._record(len(stay), NO_PARENT, self.evidence)["kept"] = 1.0

    def _attempt(self, name: str, experts: Sequence[int], parent: int, after: Continuation) -> _Attempt:
        """Train a copy with these experts; this mixture stays as it is."""
        mixture = _branch(self.mixture, experts)
        phase = self._phase(name, mixture, after)
        evidence = phase.history[-1]["validation_marginal"]
        return _Attempt(mixture, phase, evidence, self._record(len(experts), parent, evidence))

    def _keep(self, attempt: _Attempt) -> None:
        done = len(self.result.history)
        self.mixture = attempt.mixture
        self.result = TrainingResult(
            self.result.history + _sized(attempt.phase.history, attempt.mixture, done),
            attempt.phase.findings,
            {name: done + step for name, step in attempt.phase.seen.items()} | self.result.seen,
            self.result.growth,
        )
        attempt.row["kept"] = 1.0

    def _phase(self, name: str, mixture: Mixture, after: Continuation | None) -> TrainingResult:
        """One training run; where it has finished before, what it left."""
        running, finished = (self.checkpoint and self.checkpoint / f"{name}-{end}" for end in ("running", "finished"))
        ranks = self.setup.ranks
        state = told_state(finished, ranks)
        if finished and state is not None:
            load_whole(finished, mixture, None, mixture, ranks)
            findings = [Finding(*finding) for finding in state["findings"]]
            return TrainingResult(state["history"], findings, state["seen"])
        steps = None if after is None else self.settings.steps
        setup = dataclasses.replace(self.setup, after=after)
        result = train_mixture(mixture, self.train, self.validation, setup, running, steps)
        if finished:
            state = {"history": result.history, "findings": result.findings, "seen": result.seen}
            save_whole(finished, mixture, None, state, mixture, ranks)
        if running and ranks.first:
            shutil.rmtree(running, ignore_errors=True)
        return result

    def _look(self, pairs: PreferencePairs) -> View:
        setup = self.setup
        mixture = spread(self.mixture, setup.ranks).to(setup.device).eval()
        return look(mixture, pairs, setup.settings.tile_tokens, setup.device, setup.precision)

    def _groups(self, pairs: PreferencePairs) -> Tensor | None:
        return pairs.annotators if self.by_annotator else None

    def _responsible(self, view: View) -> Tensor:
        return responsibilities(view.logits, view.log_weights, self._groups(self.train))

    def _by_need(self, view: View) -> list[int]:
        """Experts by the nats that they leave unexplained in what they are responsible for, most first."""
        unexplained = -(self._responsible(view) * F.logsigmoid(view.logits)).sum(dim=0)
        order: list[int] = unexplained.argsort(descending=True, stable=True).tolist()
        return order

    def _halves(self, view: View, parent: int) -> Tensor:
        """The units of a parent: the half that it explains worst is given its copy, the other half itself: (units,)."""
        units = self.units
        count = int(units.max()) + 1
        own = self._responsible(view).argmax(dim=-1) == parent
        nats = F.logsigmoid(view.logits[:, parent])
        pairs = torch.bincount(units, minlength=count).clamp_min(1)
        explained = nats.new_zeros(count).index_add(0, units, nats) / pairs
        members = units[own].unique()
        ordered = members[explained[members].argsort(stable=True)]
        given = torch.full((count,), NOT_GIVEN)
        given[ordered] = parent
        given[ordered[: len(ordered) // 2]] = self.size
        return given

    def _record(self, experts: int, parent: int, evidence: float) -> Row:
        row: Row = {"experts": experts, "parent": parent, "validation_marginal": evidence, "kept": 0.0}
        self.result.growth.append(row)
        return row


def _branch(mixture: Mixture, experts: Sequence[int]) -> Mixture:
    """A copy of the mixture with these experts in this order; what is frozen is shared with it, not copied."""
    frozen = {id(parameter): parameter for parameter in mixture.parameters() if not parameter.requires_grad}
    # deepcopy takes what its memo holds for copied already
    twin = copy.deepcopy(mixture, dict(frozen))
    return Mixture(twin.experts.select(experts), select_weights(twin.weighting, experts), twin.likelihood)


def _sized(history: list[Row], mixture: Mixture, done: int) -> list[Row]:
    """Rows of a phase, counted on from those before it, with the number of experts."""
    return [row | {"step": done + row["step"], "experts": mixture.experts.experts} for row in history]
