"""MixturePolicy: K expert policies and the weights that mix them, with the reference they are measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mixdpo.errors import DataError
from mixdpo.objective import responsibilities
from mixdpo.objective.sparsity import top_experts
from mixdpo.policy.context import Context
from mixdpo.policy.experts import Experts
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.scoring import prompt_features, score_rows
from mixdpo.policy.tokens import TokenRow, encode_prompts, encode_rows
from mixdpo.policy.weighting import PriorWeights, Weighting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mixdpo.policy.sampling import Generations

Comparison = tuple[str, str, str] | Mapping[str, str]


class MixturePolicy(nn.Module):
    """π(y|x) = Σ_k w_k(x) π_k(y|x). Plain DPO is K = 1.

    Attributes:
        experts: K.
        likelihood: β, length normalisation and label noise: from log-probs to the likelihood of a preference.
        latent: `pair` or `annotator`, what shared one expert in training (method.md §6).
    """

    def __init__(
        self,
        expert_models: Experts,
        weighting: Weighting,
        reference: Experts,
        tokenizer: PreTrainedTokenizerBase,
        likelihood: Likelihood,
        latent: str,
        description: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.expert_models = expert_models
        self.weighting = weighting
        self.reference = reference
        self.tokenizer = tokenizer
        self.likelihood = likelihood
        self.latent = latent
        self.description = dict(description)
        self.precision = torch.float32
        self.eval()

    @property
    def experts(self) -> int:
        return self.expert_models.experts

    @property
    def device(self) -> torch.device:
        return next(self.reference.parameters()).device

    @classmethod
    def from_pretrained(cls, reference: str | Path) -> MixturePolicy:
        """Load from a directory (`./dir`) or from the registry (`reviews@staging`, `reviews@v3`).

        Raises:
            ModelError: the directory is no mixture. RegistryError: no such version.
        """
        from mixdpo.policy.persist import load_policy

        path = Path(reference)
        if not path.is_dir():
            from mixdpo.registry import resolve_policy

            path = resolve_policy(str(reference))
        return load_policy(path)

    @classmethod
    def from_causal_lm(cls, source: str | Path, revision: str | None = None, beta: float = 0.1) -> MixturePolicy:
        """A causal language model as a policy of one expert, itself its reference (the SFT baseline)."""
        from mixdpo.policy.loading import frozen_reference, load_causal_lm

        model, tokenizer = load_causal_lm(source, revision)
        reference = frozen_reference(model)
        description = {"architecture": {"kind": "shared", "head": "linear", "rank": None, "trunk": "frozen"}}
        return cls(reference, PriorWeights.uniform(1), reference, tokenizer, Likelihood(beta), "pair", description)

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 matrix products where `precision` says so; log-probs stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def logps(
        self, prompts: Sequence[str], completions: Sequence[str], finished: Sequence[bool] | None = None
    ) -> Tensor:
        """log π_k(y|x): (pairs, experts), float32, nats, summed over completion tokens.

        Args:
            finished: whether each completion ended by itself, so that its end of text counts; None: all did.
        """
        return self._score(self.expert_models, encode_rows(self.tokenizer, prompts, completions, finished))

    def reference_logps(
        self, prompts: Sequence[str], completions: Sequence[str], finished: Sequence[bool] | None = None
    ) -> Tensor:
        """log ρ(y|x) of the frozen reference: (pairs,), float32, nats; (pairs, experts) where each has its own."""
        logps = self._score(self.reference, encode_rows(self.tokenizer, prompts, completions, finished))
        return logps if self.reference.experts > 1 else logps[:, 0]

    def mixture_logps(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
        top: int | None = None,
    ) -> Tensor:
        """log π(y|x) = logsumexp_k(log w_k + log π_k(y|x)): (pairs,), nats (method.md §7).

        Args:
            top: of the mixture of each prompt's likeliest experts, as `generate(top=…)` draws.
        """
        logps = self.logps(prompts, completions, finished)
        log_weights, _ = top_experts(self.log_weights(prompts).to(logps), self.experts if top is None else top)
        return torch.logsumexp(log_weights + logps, dim=-1)

    def margins(
        self,
        prompts: Sequence[str],
        chosen: Sequence[str],
        rejected: Sequence[str],
        chosen_finished: Sequence[bool] | None = None,
        rejected_finished: Sequence[bool] | None = None,
    ) -> Tensor:
        """m_k of each pair under each expert: (pairs, experts), float32, nats, β included."""
        sides = [
            encode_rows(self.tokenizer, prompts, completions, finished)
            for completions, finished in ((chosen, chosen_finished), (rejected, rejected_finished))
        ]
        chosen_tokens, rejected_tokens = (
            torch.tensor([len(row.completion) for row in rows], device=self.device) for rows in sides
        )
        logps = [self._score(models, rows) for models in (self.expert_models, self.reference) for rows in sides]
        return self.likelihood.margins(logps[0], logps[1], logps[2], logps[3], chosen_tokens, rejected_tokens)

    def preference_logits(
        self,
        prompts: Sequence[str],
        chosen: Sequence[str],
        rejected: Sequence[str],
        chosen_finished: Sequence[bool] | None = None,
        rejected_finished: Sequence[bool] | None = None,
    ) -> Tensor:
        """Log-odds that expert k's annotator says `chosen`: (pairs, experts), nats.

        The margins, but for what label noise takes from them (method.md §6); evidence adds up over these.
        """
        return self.likelihood.logits(self.margins(prompts, chosen, rejected, chosen_finished, rejected_finished))

    def prompt_features(self, prompts: Sequence[str]) -> Tensor:
        """Mean embedding and mean state of each prompt under the frozen reference: (prompts, 2·width), float32."""
        rows = [TokenRow(ids, []) for ids in encode_prompts(self.tokenizer, prompts)]
        return prompt_features(self.reference, rows, self.precision)

    def log_weights(
        self,
        prompts: Sequence[str],
        annotators: Sequence[str | None] | None = None,
        metadata: Mapping[str, Sequence[Any]] | None = None,
    ) -> Tensor:
        """log w_k(x, u): (prompts, experts), normalised, nats.

        Args:
            annotators: who asks, one a prompt; None, or someone whom the gate never met, is a stranger to it.
            metadata: columns by name (`domain` among them), one value a prompt; a column that is left out is unknown.

        Raises:
            ConfigError: the weights do not depend on annotators, or not on a column that is given.
            DataError: a column has another length than the prompts.
        """
        context = Context(prompts, lambda: self.prompt_features(prompts), annotators, metadata or {})
        self.weighting.refuse_unseen(context)
        with torch.inference_mode():
            features = self.weighting.encode(context).to(self.device)
            log_weights: Tensor = self.weighting(features, len(prompts))
        return log_weights

    def weights(
        self,
        prompts: Sequence[str],
        annotators: Sequence[str | None] | None = None,
        metadata: Mapping[str, Sequence[Any]] | None = None,
    ) -> Tensor:
        """w_k(x, u): (prompts, experts), rows sum to 1. See `log_weights`."""
        return self.log_weights(prompts, annotators, metadata).exp()

    def personalise(self, comparisons: Sequence[Comparison], annotator: str | None = None) -> Tensor:
        """Weights over experts for one user, from a few of their comparisons; no training (method.md §6).

        Args:
            comparisons: (prompt, chosen, rejected) tuples, or mappings with these keys. None at all gives the prior.
            annotator: who it is, where the weights know annotators: the comparisons then add to what is known of them.

        Returns:
            (experts,), sums to 1: the posterior given all comparisons.
        """
        triples = [as_triple(comparison) for comparison in comparisons]
        if not triples:
            if self.weighting.sees_prompts:
                raise DataError("no comparisons, and this gate's prior depends on the prompt; use weights(prompts)")
            return self.weights([""], [annotator] if annotator is not None else None)[0]
        prompts, chosen, rejected = (list(column) for column in zip(*triples, strict=True))
        logits = self.preference_logits(prompts, chosen, rejected)
        prior = self.log_weights(prompts, [annotator] * len(triples) if annotator is not None else None)
        one_user = torch.zeros(len(triples), dtype=torch.long, device=logits.device)
        return responsibilities(logits, prior.to(logits), one_user)[0]

    def generate(
        self,
        prompts: Sequence[str],
        expert: int | None = None,
        annotators: Sequence[str | None] | None = None,
        mode: str = "sequence",
        *,
        metadata: Mapping[str, Sequence[Any]] | None = None,
        weights: Tensor | None = None,
        top: int | None = None,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        batch: int = 128,
        first: int = 0,
    ) -> Generations:
        """Continue prompts. Returns the texts, whether each ended by itself, and which expert wrote it.

        Args:
            expert: write everything with this one; None mixes.
            annotators, metadata: for whom each text is, and what is known of it; see `log_weights`.
            mode: `sequence` draws an expert for each text, z ~ w(x) (exact); `token` mixes the experts' next-token
                distributions by their posterior given the text so far (the same distribution, but for a temperature
                or top_p, which then change what all write together); `argmax` takes the likeliest expert of each
                prompt.
            weights: (experts,) or (prompts, experts) in place of the policy's own, as from `personalise`.
            top: of each prompt's experts only so many take part, the likeliest; the others never run.
            temperature: 0 is greedy.
            seed: the texts depend on it, on the prompts and their order; not on `batch`.
            first: these prompts are rows `first`, `first` + 1, … of a longer list, and get the texts they get there.
        """
        from mixdpo.policy.sampling import generate

        return generate(
            self,
            prompts,
            expert,
            annotators,
            metadata,
            mode,
            weights,
            max_new_tokens,
            temperature,
            top_p,
            seed,
            batch,
            top,
            first,
        )

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the mixture as a directory of safetensors and JSON, whole or not at all."""
        from mixdpo.policy.persist import save_policy

        return save_policy(self, Path(directory))

    def export_expert(self, expert: int, directory: str | Path) -> Path:
        """Write expert `expert` as a plain Hugging Face causal language model."""
        from mixdpo.policy.persist import export_expert

        return export_expert(self, expert, Path(directory))

    def _score(self, models: Experts, rows: Sequence[TokenRow]) -> Tensor:
        return score_rows(models, rows, self.precision)


def as_triple(comparison: Comparison) -> tuple[str, str, str]:
    if isinstance(comparison, Mapping):
        missing = [key for key in ("prompt", "chosen", "rejected") if key not in comparison]
        if missing:
            raise DataError(f"a comparison lacks {', '.join(missing)}; give prompt, chosen and rejected")
        return comparison["prompt"], comparison["chosen"], comparison["rejected"]
    prompt, chosen, rejected = comparison
    return prompt, chosen, rejected
