"""Training of a continuous latent: heads by the gradient of the bound, a Gaussian posterior for each annotator.

Closest published relative: Variational Preference Learning (Poddar et al. 2024). There an encoder gives q; here its
parameters are free for training annotators, and fitted by the same bound for new ones, so nothing is amortised.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mixdpo.errors import ConfigError, TrainingError
from mixdpo.objective.continuous import annotator_gaussian_elbo, gaussian_draws, gaussian_kl
from mixdpo.policy.continuous import ContinuousPolicy
from mixdpo.policy.latent import LatentHeads, Posterior
from mixdpo.progress import track
from mixdpo.training.batching import epoch_batches
from mixdpo.training.checkpoint import load_checkpoint, save_checkpoint
from mixdpo.training.health import Finding
from mixdpo.training.latent_heldout import compared_pairs, validation_marginal
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.parallel import started
from mixdpo.training.schedule import adamw, anneal, set_learning_rate

if TYPE_CHECKING:
    # types only: the core runs without pydantic
    from mixdpo.config.training import Training

logger = logging.getLogger(__name__)

Row = dict[str, float]

# a dimension is in use where the posteriors' means vary at least so much over annotators (Burda et al. 2016)
ACTIVE = 0.01


@dataclass(frozen=True)
class LatentTraining:
    """What a continuous latent adds to the settings of a training.

    Attributes:
        samples: draws of z for each annotator and step.
        posterior_learning_rate: of μ_u and log σ_u, at its peak. Each is moved only by its own annotator's pairs, so it
            is larger than that of the heads.
        start_scale: σ_u at the first step, in (0, 1]. Draws from the whole prior hide what an annotator's pairs say
            from the heads; narrow ones let heads and means find each other.
        kl_start: weight of the divergence at the first step; rises linearly to 1.
        kl_steps: steps of that rise; 0: the weight is 1 from the start.
        points: of N(0, I), for the likelihood of validation pairs.
    """

    samples: int = 2
    posterior_learning_rate: float = 0.2
    start_scale: float = 0.25
    kl_start: float = 0.1
    kl_steps: int = 0
    points: int = 32

    def __post_init__(self) -> None:
        shares = (self.kl_start, self.start_scale)
        if min(self.samples, self.points) < 1 or self.kl_steps < 0 or not all(0 < share <= 1 for share in shares):
            raise ConfigError(
                f"{self}: samples and points are at least 1, kl_steps at least 0, kl_start and start_scale above 0 and "
                f"at most 1"
            )


class ContinuousResult(NamedTuple):
    """What a run leaves beside the policy.

    Attributes:
        history: one row of figures a step; likelihoods are nats a pair, `kl` nats an annotator.
        findings: what is wrong with the latent, if anything.
        posterior: q of every training annotator, by code: mean and scale (annotators, d).
    """

    history: list[Row]
    findings: list[Finding]
    posterior: Posterior


def train_continuous(
    policy: ContinuousPolicy,
    train: PreferencePairs,
    validation: PreferencePairs,
    settings: Training,
    latent: LatentTraining,
    seed: int,
    precision: torch.dtype = torch.float32,
    checkpoint: Path | None = None,
) -> ContinuousResult:
    """Train the heads in place, on the device where the policy is; the trunk stays frozen.

    β and label noise are those of `policy.likelihood`; `settings.beta` and `settings.tempering` are not read.

    Args:
        seed: of the batch order and of the draws of z.
        precision: of matrix products; log-probs and losses are float32.
        checkpoint: directory to save to and resume from; its name must tell all inputs apart.

    Raises:
        TrainingError: there is nothing to train on, or a value is not finite (names step and pairs).
        DataError: a pair is longer than what the policy reads.
        ConfigError: several processes are asked for, or were started.
    """
    parallel = settings.parallel
    processes = max(started(), 1 if parallel is None else parallel.data * parallel.experts)
    if processes > 1:
        raise ConfigError(
            f"a continuous latent is trained by one process, not by {processes}, each of which would train all of it; "
            f"start one, and leave training.parallel out"
        )
    if not len(train) or not len(validation):
        raise TrainingError(
            f"{len(train)} training and {len(validation)} validation pairs; both splits need some: raise "
            f"preferences.annotators or candidates.prompts in params.yaml"
        )
    for split in (train, validation):
        split.refuse_longer(policy.reference.context)
    run = _Run(policy, train, settings, latent, seed, precision)
    state = load_checkpoint(checkpoint, run.trained, run.optimizer) if checkpoint else None
    history: list[Row] = state["history"] if state else []
    start = len(history)
    if start:
        logger.warning("resuming after step %d of %d", start, len(run.batches))
    for step in track(range(start, len(run.batches)), "training", total=len(run.batches), done=start):
        row = run.step(step)
        last = step + 1 == len(run.batches)
        if last or (step + 1) % settings.evaluate_every == 0:
            row["validation_marginal"] = validation_marginal(policy, validation, latent.points, seed)
        history.append(row)
        if checkpoint and not last and (step + 1) % settings.checkpoint_every == 0:
            save_checkpoint(checkpoint, run.trained, run.optimizer, {"history": history})
    findings = run.diagnose()
    for finding in findings:
        logger.warning("%s: %s", finding.name, finding.message)
    return ContinuousResult(history, findings, run.trained.posterior())


class _Trained(nn.Module):
    """What a checkpoint holds: heads and posteriors."""

    def __init__(self, heads: LatentHeads, annotators: int, start_scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.mean = nn.Parameter(torch.zeros(annotators, heads.dimensions))
        self.log_scale = nn.Parameter(torch.full((annotators, heads.dimensions), math.log(start_scale)))

    def posterior(self) -> Posterior:
        return Posterior(self.mean.detach().clone(), self.log_scale.detach().exp())


class _Run:
    """The parts that stay the same from step to step."""

    def __init__(
        self,
        policy: ContinuousPolicy,
        train: PreferencePairs,
        settings: Training,
        latent: LatentTraining,
        seed: int,
        precision: torch.dtype,
    ) -> None:
        self.policy, self.train, self.settings, self.latent = policy, train, settings, latent
        self.seed, self.precision, self.device = seed, precision, policy.device
        self.sizes = torch.bincount(train.annotators).to(self.device)
        self.trained = _Trained(policy.heads, len(self.sizes), latent.start_scale).to(self.device)
        groups = [
            {"params": list(policy.heads.parameters()), "lr": settings.learning_rate},
            {
                "params": [self.trained.mean, self.trained.log_scale],
                "lr": latent.posterior_learning_rate,
                # the prior is what pulls them back
                "weight_decay": 0.0,
            },
        ]
        self.optimizer = adamw(groups, settings.weight_decay)
        self.batches = [
            batch
            for epoch in range(settings.epochs)
            for batch in epoch_batches(train.annotators, settings.batch_pairs, seed, epoch, together=True)
        ]

    def step(self, step: int) -> Row:
        places = self.batches[step]
        latent, likelihood, trained = self.latent, self.policy.likelihood, self.trained
        set_learning_rate(self.optimizer, step, len(self.batches), self.settings.warmup)
        unique, member = torch.unique(self.train.annotators[torch.tensor(places)], return_inverse=True)
        unique, member = unique.to(self.device), member.to(self.device)
        # a function of (seed, step): a resumed run draws what an uninterrupted one would have drawn
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        noise = torch.randn(len(unique), latent.samples, self.policy.dimensions, generator=generator)
        mean, log_scale = trained.mean[unique], trained.log_scale[unique]
        z = gaussian_draws(mean, log_scale, noise.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            compared = compared_pairs(self.policy, self.train, places)
            chosen, rejected = compared.logps(self.policy.heads, z[member], self.settings.tile_tokens)
        logits = likelihood.logits(compared.margins(likelihood, chosen, rejected))
        log_points = torch.full((latent.samples,), -math.log(latent.samples), device=self.device)
        kl = gaussian_kl(mean, log_scale)
        share = torch.bincount(member, minlength=len(unique)) / self.sizes[unique]
        weight = anneal(step, latent.kl_start, 1.0, latent.kl_steps, "linear")
        bound = annotator_gaussian_elbo(logits, log_points, member, kl, share, weight).sum() / len(places)
        self._refuse_unless_finite("loss", bound.item(), step, places, logits)
        self.optimizer.zero_grad(set_to_none=True)
        (-bound).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.heads.parameters(), self.settings.clip)
        self._refuse_unless_finite("gradient", norm.item(), step, places, logits)
        self.optimizer.step()
        return {
            "step": step + 1,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": norm.item(),
            "loss": -bound.item(),
            "elbo": (bound - (1 - weight) * (share * kl).sum() / len(places)).item(),
            "kl": kl.mean().item(),
            "kl_weight": weight,
            "chosen_logp": chosen.mean().item(),
            "active_dimensions": float(self._active()),
        }

    def diagnose(self) -> list[Finding]:
        if self._active():
            return []
        return [
            Finding(
                "posterior-collapse",
                f"no dimension of the latent is in use (means of the annotators vary by less than {ACTIVE}): this is "
                f"plain DPO; raise kl_steps, lower kl_start, or use more comparisons an annotator",
            )
        ]

    def _active(self) -> int:
        return int((self.trained.mean.detach().var(dim=0, correction=0) > ACTIVE).sum())

    def _refuse_unless_finite(self, what: str, value: float, step: int, places: list[int], logits: Tensor) -> None:
        if math.isfinite(value):
            return
        bad = (~torch.isfinite(logits)).any(dim=-1).nonzero()[:, 0].tolist()
        names = ", ".join(self.train.ids[places[row]][:16] for row in bad[:3]) or "none by itself"
        raise TrainingError(
            f"the {what} of step {step + 1} is not finite (pairs with a non-finite margin: {names}); lower "
            f"training.learning_rate or training.clip in params.yaml, or use dtype float32"
        )
