"""The one trainer: DPO, Mix-DPO and MoE-DPO differ by the experts and weights passed in."""

from __future__ import annotations

import copy
import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixdpo.errors import TrainingError
from mixdpo.progress import track
from mixdpo.training.health import Finding
from mixdpo.training.mixture import Mixture
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.parallel import load_whole, save_whole, take_back, told_state
from mixdpo.training.run import Row, Run, Setup

if TYPE_CHECKING:
    # types only: the core runs without pydantic
    from mixdpo.config.options import Starts

logger = logging.getLogger(__name__)

# between the seeds of several starts
SEED_STRIDE = 7919
# share of the steps after which a mixture is expected to show what it will be
SETTLED = 0.25


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves beside the weights: one row of figures a step, and what is wrong with it, if anything.

    Attributes:
        findings: of the health check at the end.
        seen: the step at which each finding first showed, those that went away again included.
        growth: one row for each number of experts that was tried, where held-out evidence chose it.
    """

    history: list[Row]
    findings: list[Finding]
    seen: dict[str, int] = field(default_factory=dict)
    growth: list[Row] = field(default_factory=list)


def train_mixture(
    mixture: Mixture,
    train: PreferencePairs,
    validation: PreferencePairs,
    setup: Setup,
    checkpoint: Path | None = None,
    steps: int | None = None,
) -> TrainingResult:
    """Train experts and weights in place by stochastic variational EM.

    Args:
        checkpoint: directory to save to and resume from; its name must tell all inputs apart.
        steps: so many, with the learning rate's schedule over them; None: all epochs of the settings.

    Raises:
        TrainingError: there is nothing to train on, or too few annotators for the experts, or a value is not finite
            (names step and pairs).
        DataError: a pair is longer than what the experts read.
    """
    _refuse_unfit(mixture, train, validation, setup)
    ranks = setup.ranks
    state = told_state(checkpoint, ranks)
    if checkpoint is not None and state is not None:
        run = Run(mixture, train, validation, dataclasses.replace(setup, seed=state["seed"]), steps)
        load_whole(checkpoint, run.state, run.optimizer, run.mixture, ranks)
        logger.warning("resuming after step %d of %d", len(state["history"]), len(run.batches))
    elif setup.policy.starts is not None and mixture.experts.experts > 1 and setup.after is None:
        run, state = _best_start(mixture, train, validation, setup, steps, setup.policy.starts)
    else:
        run, state = Run(mixture, train, validation, setup, steps), {"history": [], "seen": {}, "seed": setup.seed}
    history: list[Row] = state["history"]
    seen: dict[str, int] = state["seen"]
    start = len(history)
    findings: list[Finding] = []
    steps_left = range(start, len(run.batches))
    for step in track(steps_left, "training", total=len(run.batches), done=start, shown=ranks.first):
        row = run.step(step)
        last = step + 1 == len(run.batches)
        if last or (step + 1) % setup.settings.evaluate_every == 0:
            row["validation_marginal"], findings = run.look()
            if last or step + 1 >= SETTLED * len(run.batches):
                _tell(findings, seen, step + 1)
        history.append(row)
        if checkpoint and not last and (step + 1) % setup.settings.checkpoint_every == 0:
            save_whole(checkpoint, run.state, run.optimizer, state, run.mixture, ranks)
    take_back(run.mixture, mixture)
    return TrainingResult(history, findings, seen)


def _best_start(
    mixture: Mixture,
    train: PreferencePairs,
    validation: PreferencePairs,
    setup: Setup,
    steps: int | None,
    starts: Starts,
) -> tuple[Run, dict[str, Any]]:
    """The first steps with several seeds; the run that explains validation best, as far as it came, and its state.

    Going on from there is the whole run with that seed, step for step.
    """
    untouched = copy.deepcopy(mixture.state_dict())
    best: tuple[float, int, list[Row], Any] | None = None
    for number in range(starts.number):
        seed = setup.seed + number * SEED_STRIDE
        mixture.load_state_dict(untouched)
        run = Run(mixture, train, validation, dataclasses.replace(setup, seed=seed), steps)
        first = range(min(starts.steps, len(run.batches)))
        rows = [run.step(step) for step in track(first, f"start {number + 1}", shown=setup.ranks.first)]
        evidence, _ = run.look()
        logger.info("start %d of %d (seed %d): %.4f nats a validation pair", number + 1, starts.number, seed, evidence)
        if best is None or evidence > best[0]:
            best = (evidence, seed, rows, copy.deepcopy((run.state.state_dict(), run.optimizer.state_dict())))
    assert best is not None
    _, seed, rows, (parameters, moments) = best
    run = Run(mixture, train, validation, dataclasses.replace(setup, seed=seed), steps)
    run.state.load_state_dict(parameters)
    run.optimizer.load_state_dict(moments)
    return run, {"history": rows, "seen": {}, "seed": seed}


def _tell(findings: list[Finding], seen: dict[str, int], step: int) -> None:
    """Warn of what is new, once."""
    for finding in findings:
        if finding.name not in seen:
            logger.warning("step %d: %s: %s", step, finding.name, finding.message)
    seen |= {finding.name: step for finding in findings if finding.name not in seen}


def _refuse_unfit(mixture: Mixture, train: PreferencePairs, validation: PreferencePairs, setup: Setup) -> None:
    if not len(train) or not len(validation):
        raise TrainingError(
            f"{len(train)} training and {len(validation)} validation pairs; both splits need some: raise "
            f"preferences.annotators or candidates.prompts in params.yaml"
        )
    for split in (train, validation):
        split.refuse_longer(mixture.experts.context)
    parallel, ranks = setup.settings.parallel, setup.ranks
    asked = 1 if parallel is None else parallel.data * parallel.experts
    if asked != ranks.size:
        raise TrainingError(
            f"training.parallel asks for {asked} processes but {ranks.size} train; use `mixdpo train`, which starts "
            f"them, or leave training.parallel out"
        )
    units, unit = len(train), "pairs"
    if setup.policy.latent == "annotator":
        units, unit = len(train.annotators.unique()), "annotators"
    if mixture.experts.experts > units:
        raise TrainingError(
            f"{mixture.experts.experts} experts for {units} training {unit}: some would have nothing to explain; lower "
            f"`experts` of this policy to {units} or fewer"
        )
