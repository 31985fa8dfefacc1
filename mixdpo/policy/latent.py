"""Heads that a vector of tastes modulates, and the Gaussian posterior over it that a few comparisons leave.

J = d + 1 factors (the first is common to all annotators), S points of the latent, R rank, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixdpo.objective.continuous import annotator_gaussian_elbo, gaussian_draws, gaussian_kl, normal_points
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.heads import LowRankHeads
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.token_logps import token_logps
from mixdpo.policy.tokens import TokenRow, pad


class LatentHeads(nn.Module):
    """logits(z) = h W₀ᵀ + Σ_j z_j (h A_jᵀ) B_jᵀ, with z_0 = 1 for what all annotators have in common."""

    base: Tensor  # (vocabulary, width)
    base_bias: Tensor | None  # (vocabulary,)

    def __init__(self, base_VD: Tensor, base_bias_V: Tensor | None, down_JRD: Tensor, up_JVR: Tensor) -> None:
        super().__init__()
        self.register_buffer("base", base_VD, persistent=False)
        self.register_buffer("base_bias", base_bias_V, persistent=False)
        self.down = nn.Parameter(down_JRD)
        self.up = nn.Parameter(up_JVR)

    @classmethod
    def around(
        cls,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        dimensions: int,
        rank: int,
        scale: float,
        generator: torch.Generator,
    ) -> LatentHeads:
        """Start at the shared head for z = 0.

        Args:
            scale: noise on the B_j of the latent, in standard deviations of the shared head. At B_j = 0 and μ_u = 0
                neither has a gradient, so the latent would never be used.
        """
        vocabulary, width = weight_VD.shape
        down = torch.randn((dimensions + 1, rank, width), generator=generator) / math.sqrt(width)
        up = torch.randn((dimensions + 1, vocabulary, rank), generator=generator) * (scale * float(weight_VD.std()))
        up[0] = 0.0
        bias = None if bias_V is None else bias_V.detach().clone()
        return cls(weight_VD.detach().clone(), bias, down, up)

    @property
    def dimensions(self) -> int:
        return int(self.down.shape[0]) - 1

    @property
    def rank(self) -> int:
        return int(self.down.shape[1])

    def forward(self, hidden_CD: Tensor, z_CSd: Tensor) -> Tensor:
        """(tokens, width) and (tokens, points, d) → logits (tokens, points, vocabulary)."""
        shared_CV = nn.functional.linear(hidden_CD, self.base, self.base_bias)
        inner_CJR = torch.einsum("cd,jrd->cjr", hidden_CD, self.down)
        scaled_CSJR = inner_CJR[:, None] * _with_common(z_CSd).to(inner_CJR.dtype)[..., None]
        return shared_CV[:, None] + torch.einsum("csjr,jvr->csv", scaled_CSJR, self.up)

    @torch.no_grad()
    def at(self, z_Kd: Tensor) -> LowRankHeads:
        """One low-rank head for each of these vectors, of rank J·R: (heads, d)."""
        mixed_KJ = _with_common(z_Kd.to(self.down))
        down = (mixed_KJ[:, :, None, None] * self.down).flatten(1, 2)
        up_VM = self.up.permute(1, 0, 2).flatten(1, 2)
        # all heads share B: only A is scaled by z
        return LowRankHeads(self.base, self.base_bias, down, up_VM.expand(len(z_Kd), -1, -1))


def _with_common(z: Tensor) -> Tensor:
    """Put z_0 = 1 in front: (..., d) → (..., d + 1)."""
    return torch.cat([torch.ones_like(z[..., :1]), z], dim=-1)


@dataclass(frozen=True)
class Compared:
    """Pairs under the frozen trunk: all that heads need to score them at any z, computed once."""

    hidden: Tensor  # (completion tokens, width): of chosen rows, then of rejected ones
    target: Tensor  # (completion tokens,) token ids
    row: Tensor  # (completion tokens,) row of each, chosen 0 … P−1, rejected P … 2P−1
    chosen_reference: Tensor  # (pairs,) nats
    rejected_reference: Tensor  # (pairs,) nats
    chosen_tokens: Tensor  # (pairs,)
    rejected_tokens: Tensor  # (pairs,)

    @classmethod
    @torch.no_grad()
    def under(
        cls,
        reference: SharedTrunk,
        chosen: Sequence[TokenRow],
        rejected: Sequence[TokenRow],
        cached: tuple[Tensor, Tensor] | None = None,
    ) -> Compared:
        """Run the reference's trunk over these pairs.

        Args:
            cached: (pairs,) log-probs of chosen and of rejected under the reference; None: its head computes them.
        """
        device = next(reference.parameters()).device
        batch = pad([*chosen, *rejected], device)
        hidden = reference.completion_states(batch)
        if cached is None:
            by_token = token_logps(reference.heads.one(hidden, 0).float(), batch.target)
            of_rows = by_token.new_zeros(batch.rows).index_add(0, batch.row, by_token)
            cached = of_rows[: len(chosen)], of_rows[len(chosen) :]
        lengths = torch.bincount(batch.row, minlength=batch.rows)
        return cls(hidden, batch.target, batch.row, *cached, *lengths.chunk(2))

    @property
    def pairs(self) -> int:
        return len(self.chosen_reference)

    def logps(self, heads: LatentHeads, z_PSd: Tensor, tile_tokens: int = 4096) -> tuple[Tensor, Tensor]:
        """log π_z(y|x) of chosen and of rejected completions: (pairs, points) each, float32, nats.

        Args:
            z_PSd: (pairs, points, d).
            tile_tokens: token positions times points under the heads at once; their logits are computed again in the
                backward pass, as in `SharedTrunk.forward`.
        """
        tile = max(1, tile_tokens // z_PSd.shape[1])
        z_CSd = z_PSd[self.row % self.pairs]
        parts = []
        for hidden, target, z in zip(self.hidden.split(tile), self.target.split(tile), z_CSd.split(tile), strict=True):
            if torch.is_grad_enabled() and len(self.hidden) > tile:
                parts.append(checkpoint(_token_logps, heads, hidden, target, z, use_reentrant=False))
            else:
                parts.append(_token_logps(heads, hidden, target, z))
        by_token = torch.cat(parts)
        of_rows = by_token.new_zeros(2 * self.pairs, z_PSd.shape[1]).index_add(0, self.row, by_token)
        return of_rows[: self.pairs], of_rows[self.pairs :]

    def margins(self, likelihood: Likelihood, chosen_logps: Tensor, rejected_logps: Tensor) -> Tensor:
        """m_i(z_is) from `logps`: (pairs, points), nats, β included."""
        return likelihood.margins(
            chosen_logps,
            rejected_logps,
            self.chosen_reference,
            self.rejected_reference,
            self.chosen_tokens,
            self.rejected_tokens,
        )


def _token_logps(heads: LatentHeads, hidden: Tensor, target: Tensor, z: Tensor) -> Tensor:
    return token_logps(heads(hidden, z).float(), target[:, None].expand(-1, z.shape[1]))


@dataclass(frozen=True)
class Posterior:
    """q = N(mean, diag scale²) over the tastes of one annotator (d,), or of several (annotators, d)."""

    mean: Tensor
    scale: Tensor

    def points(self, points: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """(..., points, d) and their log-weights (points,): what an expectation under q is a sum over."""
        noise, log_points = normal_points(self.mean.shape[-1], points, torch.Generator().manual_seed(seed))
        z = self.mean[..., None, :] + self.scale[..., None, :] * noise.to(self.mean)
        return z, log_points.to(self.mean)


def fit_posteriors(
    compared: Compared,
    member: Tensor,
    annotators: int,
    heads: LatentHeads,
    likelihood: Likelihood,
    steps: int,
    learning_rate: float,
    points: int,
    seed: int,
) -> Posterior:
    """The posteriors that maximise the bound with the heads held fixed, by Adam from the prior.

    Args:
        member: (pairs,), whose comparison each is, 0 … annotators−1. Who has none keeps the prior.
        points: of the expectation at each step; redrawn at each, where they are random.
    """
    mean = torch.zeros(annotators, heads.dimensions, device=compared.hidden.device, requires_grad=True)
    log_scale = torch.zeros_like(mean, requires_grad=True)
    optimizer = torch.optim.Adam([mean, log_scale], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(steps):
            noise, log_points = normal_points(heads.dimensions, points, generator)
            z = gaussian_draws(mean, log_scale, noise.to(mean))
            logits = likelihood.logits(compared.margins(likelihood, *compared.logps(heads, z[member])))
            bound = annotator_gaussian_elbo(logits, log_points.to(logits), member, gaussian_kl(mean, log_scale))
            grads = torch.autograd.grad(-bound.sum(), [mean, log_scale])
            mean.grad, log_scale.grad = grads
            optimizer.step()
    return Posterior(mean.detach(), log_scale.detach().exp())
