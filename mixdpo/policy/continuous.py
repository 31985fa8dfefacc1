"""ContinuousPolicy: one policy for every vector of tastes z, in place of K experts (Variational Preference Learning).

continuous.json       what it is (schema, dimensions, rank, likelihood)
heads.safetensors     A_j and B_j of every factor
reference/            the frozen reference with its tokenizer: a plain Hugging Face causal LM

`at(z)` is a `MixturePolicy`: whatever works with one (log-probs, drawing, export, the registry) works at any z.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mixdpo.errors import ConfigError, DataError, ModelError
from mixdpo.files import replacing, write_json
from mixdpo.policy.description import read_description
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.latent import Compared, LatentHeads, Posterior, fit_posteriors
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.loading import frozen_reference, load_causal_lm
from mixdpo.policy.mixture import Comparison, MixturePolicy, as_triple
from mixdpo.policy.tokens import encode_rows, refuse_longer
from mixdpo.policy.weighting import PriorWeights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mixdpo.policy.sampling import Generations

SCHEMA = 1
KEYS = ("dimensions", "rank", "likelihood")
FILE = "continuous.json"
NAMES = ("a continuous policy", "`ContinuousPolicy.save_pretrained`")


class ContinuousPolicy(nn.Module):
    """π_z(y|x), with z ∈ R^d an annotator's tastes and N(0, I) before they have compared anything."""

    def __init__(
        self, reference: SharedTrunk, heads: LatentHeads, likelihood: Likelihood, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.reference = reference
        self.heads = heads
        self.likelihood = likelihood
        self.tokenizer = tokenizer
        self.eval()

    @classmethod
    def new(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        dimensions: int,
        rank: int,
        likelihood: Likelihood,
        generator: torch.Generator,
        scale: float = 0.1,
    ) -> ContinuousPolicy:
        """Start from a causal language model, which is taken over as the frozen reference.

        Args:
            dimensions: d, of the latent.
            rank: of each factor's low-rank change of the head.
            scale: see `LatentHeads.around`.
        """
        if dimensions < 1 or rank < 1 or scale <= 0:
            raise ConfigError(
                f"a latent of {dimensions} dimensions, rank {rank} and scale {scale}: give at least 1, at least 1, and "
                f"above 0"
            )
        reference = frozen_reference(model)
        weight, bias = reference.heads.dense(0)
        heads = LatentHeads.around(weight, bias, dimensions, rank, scale, generator)
        return cls(reference, heads, likelihood, tokenizer)

    @property
    def dimensions(self) -> int:
        return self.heads.dimensions

    @property
    def device(self) -> torch.device:
        return self.heads.down.device

    def at(self, z: Tensor, weights: Tensor | None = None) -> MixturePolicy:
        """The policy at one z (d,), or a mixture with an expert for each of several (points, d).

        Args:
            weights: (points,) of the mixture; None: equal ones.
        """
        if z.dim() not in (1, 2) or z.shape[-1] != self.dimensions:
            raise ConfigError(
                f"z has shape {tuple(z.shape)}; this policy's latent has {self.dimensions} dimensions: give "
                f"({self.dimensions},) or (points, {self.dimensions})"
            )
        heads = self.heads.at(torch.atleast_2d(z).to(self.device))
        log_weights = torch.zeros(heads.experts) if weights is None else weights.float().log()
        rank = int(heads.down.shape[1])
        description = {"architecture": {"kind": "shared", "head": "lowrank", "rank": rank, "trunk": "frozen"}}
        models = SharedTrunk(self.reference.trunk, heads, trainable=False)
        prior = PriorWeights(log_weights).to(self.device)
        return MixturePolicy(models, prior, self.reference, self.tokenizer, self.likelihood, "annotator", description)

    def logps(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        z: Tensor,
        finished: Sequence[bool] | None = None,
    ) -> Tensor:
        """log π_z(y|x): (pairs, points), nats; a z of shape (d,) is one point."""
        return self.at(z).logps(prompts, completions, finished)

    def margins(self, prompts: Sequence[str], chosen: Sequence[str], rejected: Sequence[str], z: Tensor) -> Tensor:
        """m(z) of each pair: (pairs, points), nats, β included."""
        return self.at(z).margins(prompts, chosen, rejected)

    def personalise(
        self,
        comparisons: Sequence[Comparison],
        *,
        steps: int = 60,
        learning_rate: float = 0.1,
        points: int = 16,
        seed: int = 0,
    ) -> Posterior:
        """What a few comparisons of one annotator say about their tastes: mean and scale (d,). Heads stay fixed.

        Args:
            comparisons: (prompt, chosen, rejected), or mappings with these keys. None at all gives the prior.
            steps, learning_rate: of Adam on the bound.
            points: of each expectation; seed: of these points where they are random (above two dimensions).
        """
        if not comparisons:
            zeros = torch.zeros(self.dimensions, device=self.device)
            return Posterior(zeros, torch.ones_like(zeros))
        compared = self._compared(comparisons)
        one_user = torch.zeros(compared.pairs, dtype=torch.long, device=self.device)
        fitted = fit_posteriors(compared, one_user, 1, self.heads, self.likelihood, steps, learning_rate, points, seed)
        return Posterior(fitted.mean[0], fitted.scale[0])

    @torch.no_grad()
    def predict(
        self, comparisons: Sequence[Comparison], posterior: Posterior, points: int = 32, seed: int = 0
    ) -> Tensor:
        """log p(this annotator says `chosen`) of each comparison, z integrated out under q: (comparisons,), nats."""
        z, log_points = posterior.points(points, seed)
        prompts, chosen, rejected = _columns(comparisons)
        logits = self.at(z).preference_logits(prompts, chosen, rejected)
        return torch.logsumexp(log_points + F.logsigmoid(logits), dim=-1)

    def generate(
        self,
        prompts: Sequence[str],
        z: Tensor,
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        batch: int = 128,
    ) -> Generations:
        """Continue prompts as someone with tastes z: (d,) for all prompts, or (prompts, d) one each.

        `Generations.experts` are rows of the distinct z in ascending order. Other arguments as in
        `MixturePolicy.generate`.
        """
        if z.dim() == 2 and len(z) != len(prompts):
            raise ConfigError(f"{len(z)} rows of z for {len(prompts)} prompts; give one row a prompt, or one for all")
        distinct, own = torch.unique(torch.atleast_2d(z), dim=0, return_inverse=True)
        weights = F.one_hot(own.expand(len(prompts)), len(distinct)).float()
        return self.at(distinct).generate(
            prompts,
            weights=weights,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            batch=batch,
        )

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write safetensors and JSON, whole or not at all."""
        path = Path(directory)
        with replacing(path) as target:
            target.mkdir(parents=True)
            self._reference_policy().export_expert(0, target / "reference")
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.heads.state_dict().items()}
            save_file(tensors, target / "heads.safetensors")
            about = {
                "schema": SCHEMA,
                "dimensions": self.dimensions,
                "rank": self.heads.rank,
                "likelihood": self.likelihood.describe(),
            }
            write_json(target / FILE, about)
        return path

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> ContinuousPolicy:
        """Read what `save_pretrained` wrote.

        Raises:
            ModelError: it is no continuous policy, of another schema, or its parts do not fit together.
        """
        path = Path(directory)
        about = read_description(path, FILE, SCHEMA, KEYS, *NAMES)
        model, tokenizer = load_causal_lm(path / "reference")
        try:
            policy = cls.new(
                model,
                tokenizer,
                about["dimensions"],
                about["rank"],
                Likelihood(**about["likelihood"]),
                torch.Generator().manual_seed(0),
            )
            policy.heads.load_state_dict(load_file(path / "heads.safetensors"))
        except (SafetensorError, OSError, RuntimeError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise ModelError(f"{path}: its files do not fit its {FILE} ({first}); copy or train it again") from error
        return policy

    def _compared(self, comparisons: Sequence[Comparison]) -> Compared:
        prompts, chosen, rejected = _columns(comparisons)
        better, worse = (encode_rows(self.tokenizer, prompts, completions) for completions in (chosen, rejected))
        refuse_longer([*better, *worse], self.reference.context)
        return Compared.under(self.reference, better, worse)

    def _reference_policy(self) -> MixturePolicy:
        description: dict[str, Any] = {"architecture": {"kind": "shared", "head": "linear", "rank": None}}
        prior = PriorWeights.uniform(1)
        return MixturePolicy(
            self.reference, prior, self.reference, self.tokenizer, self.likelihood, "annotator", description
        )


def _columns(comparisons: Sequence[Comparison]) -> tuple[list[str], list[str], list[str]]:
    """Prompts, chosen and rejected completions of at least one comparison."""
    if not comparisons:
        raise DataError("there are no comparisons; give at least one (prompt, chosen, rejected)")
    prompts, chosen, rejected = zip(*map(as_triple, comparisons), strict=True)
    return list(prompts), list(chosen), list(rejected)
