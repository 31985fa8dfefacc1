"""MixturePolicy: K expert policies and the weights that mix them, with the reference they are measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mixdpo.errors import ConfigError, DataError
from mixdpo.objective import preference_margins, responsibilities
from mixdpo.policy.experts import Experts, SharedTrunk
from mixdpo.policy.tokens import (
    TokenRow,
    context_of,
    encode_prompts,
    encode_rows,
    length_sorted_batches,
    pad,
    refuse_longer,
)
from mixdpo.policy.weighting import PriorWeights, Weighting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mixdpo.policy.sampling import Generations

Comparison = tuple[str, str, str] | Mapping[str, str]

# padded tokens of one forward pass outside training
BATCH_TOKENS = 8192


class MixturePolicy(nn.Module):
    """π(y|x) = Σ_k w_k(x) π_k(y|x). Plain DPO is K = 1.

    Attributes:
        experts: K.
        beta: KL temperature of the implicit rewards.
        latent: `pair` or `annotator`, what shared one expert in training (method.md §6).
    """

    def __init__(
        self,
        expert_models: Experts,
        weighting: Weighting,
        reference: SharedTrunk,
        tokenizer: PreTrainedTokenizerBase,
        beta: float,
        latent: str,
        description: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.expert_models = expert_models
        self.weighting = weighting
        self.reference = reference
        self.tokenizer = tokenizer
        self.beta = beta
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
        return cls(reference, PriorWeights.uniform(1), reference, tokenizer, beta, "pair", description)

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
        """log ρ(y|x) of the frozen reference: (pairs,), float32, nats."""
        return self._score(self.reference, encode_rows(self.tokenizer, prompts, completions, finished))[:, 0]

    def mixture_logps(
        self, prompts: Sequence[str], completions: Sequence[str], finished: Sequence[bool] | None = None
    ) -> Tensor:
        """log π(y|x) = logsumexp_k(log w_k + log π_k(y|x)): (pairs,), nats (method.md §7)."""
        logps = self.logps(prompts, completions, finished)
        return torch.logsumexp(self.log_weights(prompts).to(logps) + logps, dim=-1)

    def margins(
        self,
        prompts: Sequence[str],
        chosen: Sequence[str],
        rejected: Sequence[str],
        chosen_finished: Sequence[bool] | None = None,
        rejected_finished: Sequence[bool] | None = None,
    ) -> Tensor:
        """m_k of each pair under each expert: (pairs, experts), float32, nats, β included."""
        return preference_margins(
            self.logps(prompts, chosen, chosen_finished),
            self.logps(prompts, rejected, rejected_finished),
            self.reference_logps(prompts, chosen, chosen_finished),
            self.reference_logps(prompts, rejected, rejected_finished),
            self.beta,
        )

    def prompt_features(self, prompts: Sequence[str]) -> Tensor:
        """Mean embedding and mean state of each prompt under the frozen reference: (prompts, 2·width), float32."""
        rows = [TokenRow(ids, []) for ids in encode_prompts(self.tokenizer, prompts)]
        refuse_longer(rows, context_of(self.reference.trunk))
        features: list[tuple[list[int], Tensor]] = []
        with torch.inference_mode(), self.autocast():
            for places in length_sorted_batches([len(row) for row in rows], BATCH_TOKENS):
                batch = pad([rows[place] for place in places], self.device)
                features.append((places, self.reference.prompt_features(batch)))
        return _in_order(features, len(rows))

    def log_weights(self, prompts: Sequence[str], annotators: Sequence[str] | None = None) -> Tensor:
        """log w_k(x): (prompts, experts), normalised, nats."""
        if annotators is not None:
            raise ConfigError(
                "this mixture's weights do not depend on the annotator; leave `annotators` out, or use "
                "personalise(comparisons) and pass its result to generate(weights=…)"
            )
        features = self.prompt_features(prompts) if self.weighting.needs_features else None
        with torch.inference_mode():
            log_weights: Tensor = self.weighting(features, len(prompts))
        return log_weights

    def weights(self, prompts: Sequence[str], annotators: Sequence[str] | None = None) -> Tensor:
        """w_k(x): (prompts, experts), rows sum to 1."""
        return self.log_weights(prompts, annotators).exp()

    def personalise(self, comparisons: Sequence[Comparison]) -> Tensor:
        """Weights over experts for one user, from a few of their comparisons; no training (method.md §6).

        Args:
            comparisons: (prompt, chosen, rejected) tuples, or mappings with these keys. None at all gives the prior.

        Returns:
            (experts,), sums to 1: the posterior given all comparisons.
        """
        triples = [_triple(comparison) for comparison in comparisons]
        if not triples:
            if self.weighting.needs_features:
                raise DataError("no comparisons, and this gate's prior depends on the prompt; use weights(prompts)")
            return self.log_weights([""])[0].exp()
        prompts, chosen, rejected = (list(column) for column in zip(*triples, strict=True))
        margins = self.margins(prompts, chosen, rejected)
        one_user = torch.zeros(len(triples), dtype=torch.long, device=margins.device)
        return responsibilities(margins, self.log_weights(prompts).to(margins), one_user)[0]

    def generate(
        self,
        prompts: Sequence[str],
        expert: int | None = None,
        annotators: Sequence[str] | None = None,
        mode: str = "sequence",
        *,
        weights: Tensor | None = None,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        batch: int = 128,
    ) -> Generations:
        """Continue prompts. Returns the texts, whether each ended by itself, and which expert wrote it.

        Args:
            expert: write everything with this one; None mixes.
            mode: `sequence` draws an expert for each text, z ~ w(x) (exact); `token` mixes the experts' next-token
                distributions by their posterior given the text so far (the same distribution); `argmax` takes the
                likeliest expert of each prompt.
            weights: (experts,) or (prompts, experts) in place of the policy's own, as from `personalise`.
            temperature: 0 is greedy.
            seed: the texts depend on it, on the prompts and their order; not on `batch`.
        """
        from mixdpo.policy.sampling import generate

        return generate(
            self, prompts, expert, annotators, mode, weights, max_new_tokens, temperature, top_p, seed, batch
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
        refuse_longer(rows, context_of(self.reference.trunk))
        scores: list[tuple[list[int], Tensor]] = []
        with torch.inference_mode(), self.autocast():
            for places in length_sorted_batches([len(row) for row in rows], BATCH_TOKENS):
                batch = pad([rows[place] for place in places], self.device)
                scores.append((places, models(batch)))
        return _in_order(scores, len(rows))


def _in_order(parts: list[tuple[list[int], Tensor]], rows: int) -> Tensor:
    """Put batch results back into the order in which the rows were given."""
    if not parts:
        raise DataError("there are no rows to score; give at least one prompt")
    result = parts[0][1].new_empty((rows, parts[0][1].shape[-1]))
    for places, values in parts:
        result[torch.tensor(places, device=values.device)] = values
    return result


def _triple(comparison: Comparison) -> tuple[str, str, str]:
    if isinstance(comparison, Mapping):
        missing = [key for key in ("prompt", "chosen", "rejected") if key not in comparison]
        if missing:
            raise DataError(f"a comparison lacks {', '.join(missing)}; give prompt, chosen and rejected")
        return comparison["prompt"], comparison["chosen"], comparison["rejected"]
    prompt, chosen, rejected = comparison
    return prompt, chosen, rejected
