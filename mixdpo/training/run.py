"""One run of variational EM: everything that stays from step to step, and the step (method.md §3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from mixdpo.errors import TrainingError
from mixdpo.training.batching import epoch_batches
from mixdpo.training.estep import EStep
from mixdpo.training.figures import step_figures
from mixdpo.training.freezing import Frozen, freeze_models, perturb_others
from mixdpo.training.health import Finding, diagnose
from mixdpo.training.mixture import Mixture, weigh
from mixdpo.training.mstep import closed_form_updates, m_step_loss
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.parallel import ALONE, Ranks, SpreadExperts, agree, passes_of, spread
from mixdpo.training.reseed import Reseeder
from mixdpo.training.schedule import adamw, set_learning_rate
from mixdpo.training.validation import look, marginal, signs

if TYPE_CHECKING:
    # types only: the core runs without pydantic
    from mixdpo.config.policy import Policy
    from mixdpo.config.training import Training

Row = dict[str, float]


@dataclass(frozen=True)
class Continuation:
    """A run goes on with a mixture that is trained already: nothing breaks its symmetry, schedules are where they were.

    Attributes:
        done: steps before this run. The learning rate alone starts anew.
        given: (units,) the expert that an annotator (or pair) is given for the first `steps` steps, −1 for none.
    """

    done: int
    given: Tensor | None = None
    steps: int = 0


@dataclass(frozen=True)
class Setup:
    """How a run goes.

    Attributes:
        seed: of the batch order, of whatever breaks the symmetry, and of the relaxation's draws.
        precision: of matrix products; log-probs, responsibilities and losses are float32.
        started: how many experts, the first ones, come trained from elsewhere: noise is for the others.
        after: where the mixture has been trained before; None: it is new.
        ranks: the processes that train it together, each of which has it whole at the start and at the end.
    """

    settings: Training
    policy: Policy
    seed: int
    device: torch.device
    precision: torch.dtype = torch.float32
    started: int = 0
    after: Continuation | None = None
    ranks: Ranks = ALONE


class Run:
    """A mixture in training.

    Attributes:
        state: every module whose parameters and buffers a checkpoint must hold.
        batches: the places of each step's pairs.
        passes: the way of a batch through the experts and back.
    """

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
        if policy.symmetry.kind == "noise" and experts > 1 and setup.after is None:
            noise = torch.Generator().manual_seed(setup.seed)
            stay = {*policy.frozen, *range(setup.started)}
            perturb_others(mixture.experts, sorted(stay), policy.symmetry.scale, noise)
        freeze_models(mixture.experts, policy.frozen)
        mixture = spread(mixture, setup.ranks)
        # no dropout: the policy's log-probs must be those that the reference and the evaluation see
        self.mixture = mixture.to(setup.device).eval()
        self.frozen = Frozen(mixture.experts, policy.frozen)
        self.estep = EStep(policy, settings.tempering, train, experts, settings.batch_pairs, setup.seed)
        self.estep.to(setup.device)
        self.done = 0
        if setup.after is not None:
            self.done = setup.after.done
            self.estep.go_on(setup.after.given, self.done + setup.after.steps)
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
            {"params": parameters, "lr": rate} for parameters, rate in zip(self.parameters.values(), rates, strict=True)
        ]
        self.optimizer = adamw(groups, settings.weight_decay)
        epochs = itertools.count() if steps is not None else range(settings.epochs)
        batches = (
            batch
            for epoch in epochs
            for batch in epoch_batches(train.annotators, settings.batch_pairs, setup.seed, epoch, self.by_annotator)
        )
        self.batches = list(itertools.islice(batches, steps))
        self.passes = passes_of(mixture.experts, train, setup.device, setup.precision, settings, self.batches)

    def step(self, step: int) -> Row:
        """One optimiser step on one batch; returns its figures."""
        places = self.batches[step]
        setup, mixture, policy = self.setup, self.mixture, self.setup.policy
        setup.ranks.reach(step + 1)
        set_learning_rate(self.optimizer, step, len(self.batches), setup.settings.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        logps = self.passes.forward(places, self.estep.expected(self.done + step, places))
        result = weigh(mixture, self.train, places, logps)
        logits = mixture.likelihood.logits(result.margins)
        assigned = self.estep(self.done + step, places, logits.detach(), result.log_weights.detach())
        if self.reseeder is not None:
            assigned = self.reseeder.hand_over(assigned, logits.detach())
        agree(setup.ranks, (assigned.pairs, assigned.beliefs, assigned.units))
        loss, log = m_step_loss(result, logits, assigned, mixture, policy, self.done + step)
        if not math.isfinite(log["loss"]):
            self._refuse("loss", step, places, result.margins)
        self.estep.skipped.fill_(log["skipped"])
        loss.backward()  # as far as the log-probs, and into the gate
        assert logps.grad is not None
        self.passes.backward(logps.grad)
        gate = self.parameters["gate_gradient_norm"]
        agree(setup.ranks, [parameter.grad for parameter in gate if parameter.grad is not None])
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
        groups = self.validation.annotators if self.by_annotator else None
        return marginal(view, groups), diagnose(signs(view, groups))

    def _clip(self, step: int, places: list[int], margins: Tensor) -> Row:
        """Bound the experts' gradient and the gate's, each by itself: neither is to slow the other down."""
        self.frozen.clear_gradients()
        norms = {}
        for name, parameters in self.parameters.items():
            norm = self._clip_norm(name, parameters)
            if norm is not None:
                if not math.isfinite(norm):
                    self._refuse("gradient", step, places, margins)
                norms[name] = norm.item()
        return norms

    def _clip_norm(self, name: str, parameters: list[Parameter]) -> Tensor | None:
        experts, limit = self.mixture.experts, self.setup.settings.clip
        if name == "gradient_norm" and isinstance(experts, SpreadExperts):
            return experts.clip_gradient(limit)
        return torch.nn.utils.clip_grad_norm_(parameters, limit) if parameters else None

    def _groups(self, pairs: PreferencePairs, places: Sequence[int]) -> Tensor | None:
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
