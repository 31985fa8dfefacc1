"""The one trainer: DPO, Mix-DPO and MoE-DPO differ by the experts and weights passed in."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from mixdpo.errors import TrainingError
from mixdpo.progress import track
from mixdpo.training.batching import epoch_batches
from mixdpo.training.checkpoint import load_checkpoint, save_checkpoint
from mixdpo.training.estep import EStep
from mixdpo.training.figures import step_figures
from mixdpo.training.freezing import Frozen, perturb_others
from mixdpo.training.health import Finding, diagnose
from mixdpo.training.mixture import Mixture, forward
from mixdpo.training.mstep import closed_form_updates, m_step_loss
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.reseed import Reseeder
from mixdpo.training.schedule import adamw, set_learning_rate
from mixdpo.training.validation import look, marginal, signs

if TYPE_CHECKING:
    # types only: the core runs without pydantic
    from mixdpo.config.policy import Policy, Training

logger = logging.getLogger(__name__)

Row = dict[str, float]

# share of the steps after which a mixture is expected to show what it will be
SETTLED = 0.25


@dataclass(frozen=True)
class Setup:
    """How a run goes.

    Attributes:
        seed: of the batch order, of whatever breaks the symmetry, and of the relaxation's draws.
        precision: of matrix products; log-probs, responsibilities and losses are float32.
    """

    settings: Training
    policy: Policy
    seed: int
    device: torch.device
    precision: torch.dtype = torch.float32


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves beside the weights: one row of figures a step, and what is wrong with it, if anything.

    Attributes:
        findings: of the health check at the end.
        seen: the step at which each finding first showed, those that went away again included.
    """

    history: list[Row]
    findings: list[Finding]
    seen: dict[str, int] = field(default_factory=dict)


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
        steps: at most so many, with the learning rate's schedule over them; None: all epochs of the settings.

    Raises:
        TrainingError: there is nothing to train on, or too few annotators for the experts, or a value is not finite
            (names step and pairs).
    """
    _refuse_unfit(mixture, train, validation, setup)
    run = _Run(mixture, train, validation, setup, steps)
    state = load_checkpoint(checkpoint, run.state, run.optimizer) if checkpoint else None
    history: list[Row] = state["history"] if state else []
    seen: dict[str, int] = state["seen"] if state else {}
    start = len(history)
    if start:
        logger.warning("resuming after step %d of %d", start, len(run.batches))
    findings: list[Finding] = []
    for step in track(range(start, len(run.batches)), "training", total=len(run.batches), done=start):
        row = run.step(step)
        last = step + 1 == len(run.batches)
        if last or (step + 1) % setup.settings.evaluate_every == 0:
            row["validation_marginal"], findings = run.look()
            if last or step + 1 >= SETTLED * len(run.batches):
                _tell(findings, seen, step + 1)
        history.append(row)
        if checkpoint and not last and (step + 1) % setup.settings.checkpoint_every == 0:
            save_checkpoint(checkpoint, run.state, run.optimizer, {"history": history, "seen": seen})
    return TrainingResult(history, findings, seen)


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
    units, unit = len(train), "pairs"
    if setup.policy.latent == "annotator":
        units, unit = len(train.annotators.unique()), "annotators"
    if mixture.experts.experts > units:
        raise TrainingError(
            f"{mixture.experts.experts} experts for {units} training {unit}: some would have nothing to explain; lower "
            f"`experts` of this policy to {units} or fewer"
        )


class _Run:
    """The parts that stay the same from step to step."""

    def __init__(
        self,
        mixture: Mixture,
        train: PreferencePairs,
        validation: PreferencePairs,
        setup: Setup,
        steps: int | None,
    ) -> None:
        settings, policy, experts = setup.settings, setup.policy, mixture.experts.experts
        self.setup, self.train, self.validation = setup, train, validation
        self.by_annotator = policy.latent == "annotator"
        # no dropout: the policy's log-probs must be those that the reference and the evaluation see
        self.mixture = mixture.to(setup.device).eval()
        if policy.symmetry.kind == "noise" and experts > 1:
            noise = torch.Generator().manual_seed(setup.seed)
            perturb_others(mixture.experts, policy.frozen, policy.symmetry.scale, noise)
        self.frozen = Frozen(mixture.experts, policy.frozen)
        self.estep = EStep(policy, settings.tempering, train, experts, settings.batch_pairs, setup.seed)
        self.estep.to(setup.device)
        self.reseeder = Reseeder(policy.reseed, experts).to(setup.device) if policy.reseed else None
        # everything that a checkpoint must hold
        self.state = nn.ModuleDict({"mixture": mixture, "estep": self.estep})
        if self.reseeder is not None:
            self.state["reseeder"] = self.reseeder
        self.parameters = {
            "gradient_norm": _trainable(mixture.experts),
            "gate_gradient_norm": _trainable(mixture.weighting),
        }
        rates = [settings.learning_rate, getattr(policy.weights, "learning_rate", 0.0)]
        groups = [
            {"params": parameters, "lr": rate}
            for parameters, rate in zip(self.parameters.values(), rates, strict=True)
        ]
        self.optimizer = adamw(groups, settings.weight_decay)
        self.batches = [
            batch
            for epoch in range(settings.epochs)
            for batch in epoch_batches(train.annotators, settings.batch_pairs, setup.seed, epoch, self.by_annotator)
        ][:steps]

    def step(self, step: int) -> Row:
        """One optimiser step on one batch; returns its figures."""
        places = self.batches[step]
        setup, mixture, policy = self.setup, self.mixture, self.setup.policy
        set_learning_rate(self.optimizer, step, len(self.batches), setup.settings.warmup)
        with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.precision == torch.bfloat16):
            result = forward(mixture, self.train, places, setup.settings.tile_tokens, setup.device)
        logits = mixture.likelihood.logits(result.margins)
        assigned = self.estep(step, places, logits.detach(), result.log_weights.detach())
        if self.reseeder is not None:
            assigned = self.reseeder.hand_over(assigned, logits.detach())
        loss, log = m_step_loss(result, logits, assigned, mixture, policy, step)
        if not math.isfinite(log["loss"]):
            self._refuse("loss", step, places, result.margins)
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # all experts may be frozen and the weights in closed form
            loss.backward()
        log |= self._clip(step, places, result.margins)
        self.optimizer.step()
        self.frozen.restore()
        closed_form_updates(result, assigned, mixture, policy)
        if self.reseeder is not None:
            log["reseeded"] = len(self.reseeder.watch(assigned, mixture.experts, self.optimizer))
        if policy.sparsity is not None:
            log["dropped_mass"] = assigned.dropped
        if policy.noise is not None:
            log["epsilon"] = mixture.likelihood.epsilon.item()
        lr = self.optimizer.param_groups[0]["lr"]
        figures = step_figures(result, logits, assigned, self._groups(self.train, places))
        return {"step": step + 1, "learning_rate": lr} | log | figures

    def look(self) -> tuple[float, list[Finding]]:
        """Log-likelihood of the validation pairs, nats a pair, and what is wrong with the mixture as it is now."""
        setup = self.setup
        view = look(self.mixture, self.validation, setup.settings.tile_tokens, setup.device, setup.precision)
        groups = self._groups(self.validation, range(len(self.validation)))
        return marginal(view, groups), diagnose(signs(view, groups))

    def _clip(self, step: int, places: list[int], margins: Tensor) -> Row:
        """Bound the experts' gradient and the gate's, each by itself: neither is to slow the other down."""
        self.frozen.clear_gradients()
        norms = {}
        for name, parameters in self.parameters.items():
            if parameters:
                norm = torch.nn.utils.clip_grad_norm_(parameters, self.setup.settings.clip)
                if not math.isfinite(norm):
                    self._refuse("gradient", step, places, margins)
                norms[name] = norm.item()
        return norms

    def _groups(self, pairs: PreferencePairs, places: Any) -> Tensor | None:
        return pairs.annotators[torch.as_tensor(places)].to(self.setup.device) if self.by_annotator else None

    def _refuse(self, what: str, step: int, places: list[int], margins: Tensor) -> NoReturn:
        bad = (~torch.isfinite(margins)).any(dim=-1).nonzero()[:, 0].tolist()
        names = ", ".join(self.train.ids[places[row]][:16] for row in bad[:3]) or "none by itself"
        raise TrainingError(
            f"the {what} of step {step + 1} is not finite (pairs with a non-finite margin: {names}); lower "
            f"training.learning_rate or training.clip in params.yaml, or use dtype float32"
        )


def _trainable(module: nn.Module) -> list[Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
