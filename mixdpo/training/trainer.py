"""The one trainer: DPO, Mix-DPO and MoE-DPO differ by the experts and weights passed in."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from mixdpo.errors import TrainingError
from mixdpo.objective import annotator_log_likelihood, marginal_log_likelihood, responsibilities, update_global_weights
from mixdpo.policy.experts import Experts
from mixdpo.policy.tokens import length_sorted_batches
from mixdpo.policy.weighting import Gate, PriorWeights, Weighting
from mixdpo.progress import track
from mixdpo.training.batching import epoch_batches
from mixdpo.training.checkpoint import load_checkpoint, save_checkpoint
from mixdpo.training.em import Forward, Mixture, em_step, forward
from mixdpo.training.health import Finding, diagnose
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.schedule import adamw, set_learning_rate, temperature_at

if TYPE_CHECKING:
    # types only: the core runs without pydantic
    from mixdpo.config.policy import Policy, Training

logger = logging.getLogger(__name__)

Row = dict[str, float]

# padded tokens of one forward pass over validation pairs
EVALUATION_TOKENS = 8192


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves beside the weights: one row of figures a step, and what is wrong with it, if anything."""

    history: list[Row]
    findings: list[Finding]


def train_mixture(
    experts: Experts,
    weighting: Weighting,
    train: PreferencePairs,
    validation: PreferencePairs,
    settings: Training,
    policy: Policy,
    seed: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    checkpoint: Path | None = None,
) -> TrainingResult:
    """Train experts and weights in place by stochastic variational EM.

    Args:
        seed: of the batch order and of whatever breaks the symmetry.
        precision: of matrix products; log-probs, responsibilities and losses are float32.
        checkpoint: directory to save to and resume from; its name must tell all inputs apart.

    Raises:
        TrainingError: there is nothing to train on, or a value is not finite (names step and pairs).
    """
    if not len(train) or not len(validation):
        raise TrainingError(
            f"{len(train)} training and {len(validation)} validation pairs; both splits need some: raise "
            f"preferences.annotators or candidates.prompts in params.yaml"
        )
    run = _Run(experts, weighting, train, validation, settings, policy, seed, device, precision)
    state = load_checkpoint(checkpoint, run.mixture, run.optimizer) if checkpoint else None
    history: list[Row] = state["history"] if state else []
    start = len(history)
    if start:
        logger.warning("resuming after step %d of %d", start, len(run.batches))
    for step in track(range(start, len(run.batches)), "training", total=len(run.batches), done=start):
        row = run.step(step)
        last = step + 1 == len(run.batches)
        if last or (step + 1) % settings.evaluate_every == 0:
            row["validation_marginal"] = run.validation_marginal()
        history.append(row)
        if checkpoint and not last and (step + 1) % settings.checkpoint_every == 0:
            save_checkpoint(checkpoint, run.mixture, run.optimizer, {"history": history})
    findings = run.diagnose()
    for finding in findings:
        logger.warning("%s: %s", finding.name, finding.message)
    return TrainingResult(history, findings)


class _Run:
    """The parts that stay the same from step to step."""

    def __init__(
        self,
        experts: Experts,
        weighting: Weighting,
        train: PreferencePairs,
        validation: PreferencePairs,
        settings: Training,
        policy: Policy,
        seed: int,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.mixture = Mixture(experts, weighting).to(device)
        self.train, self.validation = train, validation
        self.settings, self.policy = settings, policy
        self.device, self.precision = device, precision
        self.by_annotator = policy.latent == "annotator"
        # no dropout: the policy's log-probs must be those that the reference and the evaluation see
        self.mixture.eval()
        generator = torch.Generator().manual_seed(seed)
        if policy.symmetry.kind == "noise" and experts.experts > 1:
            for model in {id(model): model for model, _ in experts.models()}.values():
                model.heads.perturb(policy.symmetry.scale, generator)
        units = int(train.annotators.max()) + 1 if self.by_annotator else len(train)
        self.partition = torch.randint(experts.experts, (units,), generator=generator)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in experts.parameters() if p.requires_grad], "lr": settings.learning_rate}
        ]
        if isinstance(weighting, Gate):
            assert policy.weights.kind == "gate"
            weighting.standardise(train.features.to(device))
            groups.append({"params": list(weighting.parameters()), "lr": policy.weights.learning_rate})
        self.optimizer = adamw(groups, settings.weight_decay)
        self.batches = [
            batch
            for epoch in range(settings.epochs)
            for batch in epoch_batches(train.annotators, settings.batch_pairs, seed, epoch, self.by_annotator)
        ]

    def step(self, step: int) -> Row:
        """One optimiser step on one batch; returns its figures."""
        places = self.batches[step]
        settings, weights = self.settings, self.policy.weights
        set_learning_rate(self.optimizer, step, len(self.batches), settings.warmup)
        temperature = temperature_at(step, settings.tempering.start, settings.tempering.steps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            result = forward(self.mixture, self.train, places, settings.beta, settings.tile_tokens, self.device)
        groups = self._groups(self.train, places)
        entropy = weights.entropy if weights.kind == "gate" and step >= weights.rest_steps else None
        outcome = em_step(result, groups, self.mixture.weighting, entropy, temperature, self._given(step, places))
        if not math.isfinite(outcome.log["loss"]):
            self._refuse("loss", step, places, result.margins)
        self.optimizer.zero_grad(set_to_none=True)
        outcome.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.mixture.parameters(), settings.clip)
        if not math.isfinite(norm):
            self._refuse("gradient", step, places, result.margins)
        self.optimizer.step()
        if weights.kind == "global":
            self._update_prior(outcome.responsibilities, groups)
        lr = self.optimizer.param_groups[0]["lr"]
        return {"step": step + 1, "learning_rate": lr, "gradient_norm": norm.item()} | outcome.log

    def validation_marginal(self) -> float:
        """Log-likelihood of the validation pairs, nats a pair."""
        margins, log_weights = self._validate()
        if self.by_annotator:
            total = annotator_log_likelihood(margins, log_weights, self.validation.annotators.to(self.device)).sum()
        else:
            total = marginal_log_likelihood(margins, log_weights).sum()
        return total.item() / len(margins)

    def diagnose(self) -> list[Finding]:
        margins, log_weights = self._validate()
        groups = self.validation.annotators.to(self.device) if self.by_annotator else None
        # without evidence the posterior is the prior: an annotator's, where the latent is theirs
        prior = responsibilities(torch.zeros_like(margins), log_weights, groups)
        return diagnose(margins, responsibilities(margins, log_weights, groups), prior)

    @torch.no_grad()
    def _validate(self) -> tuple[Tensor, Tensor]:
        """Margins and log-weights of all validation pairs, in their order."""
        margins = torch.zeros(len(self.validation), self.mixture.experts.experts, device=self.device)
        log_weights = torch.zeros_like(margins)
        for places in length_sorted_batches(self.validation.lengths(), EVALUATION_TOKENS // 2):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                result: Forward = forward(
                    self.mixture, self.validation, places, self.settings.beta, self.settings.tile_tokens, self.device
                )
            margins[places], log_weights[places] = result.margins, result.log_weights
        return margins, log_weights

    def _groups(self, pairs: PreferencePairs, places: list[int]) -> Tensor | None:
        return pairs.annotators[torch.tensor(places)].to(self.device) if self.by_annotator else None

    def _given(self, step: int, places: list[int]) -> Tensor | None:
        """Random responsibilities, the same for an annotator at every step, while symmetry is to be broken."""
        symmetry = self.policy.symmetry
        if symmetry.kind != "partition" or step >= symmetry.steps:
            return None
        units = self.train.annotators[torch.tensor(places)] if self.by_annotator else torch.tensor(places)
        experts = self.mixture.experts.experts
        return torch.nn.functional.one_hot(self.partition[units], experts).float().to(self.device)

    @torch.no_grad()
    def _update_prior(self, q: Tensor, groups: Tensor | None) -> None:
        """Global weights: each draw of the latent counts once, so an annotator's pairs count together."""
        prior, weights = self.mixture.weighting, self.policy.weights
        assert isinstance(prior, PriorWeights)
        assert weights.kind == "global"
        if groups is not None:
            unique, member = torch.unique(groups, return_inverse=True)
            q = q.new_zeros(len(unique), q.shape[-1]).index_copy(0, member, q)
        prior.log_weights = update_global_weights(prior.log_weights, q, weights.alpha, weights.smoothing)

    def _refuse(self, what: str, step: int, places: list[int], margins: Tensor) -> NoReturn:
        bad = (~torch.isfinite(margins)).any(dim=-1).nonzero()[:, 0].tolist()
        names = ", ".join(self.train.ids[places[row]][:16] for row in bad[:3]) or "none by itself"
        raise TrainingError(
            f"the {what} of step {step + 1} is not finite (pairs with a non-finite margin: {names}); lower "
            f"training.learning_rate or training.clip in params.yaml, or use dtype float32"
        )
