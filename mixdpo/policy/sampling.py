"""Drawing from the mixture: whose turn it is to write (method.md §7).

With temperature 1 and top-p 1 the modes `sequence` and `token` draw from the same distribution, the mixture's own, and
`MixturePolicy.mixture_logps` is its exact log-prob. Otherwise they differ: `sequence` changes the next-token
distribution of the one expert that writes, `token` that of all together. In both the experts' shares stay what the
untouched experts give them: v_k ∝ w_k π_k(y_<t | x), with no temperature and no nucleus in π_k.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mixdpo.errors import ConfigError
from mixdpo.objective.sparsity import top_experts
from mixdpo.policy.authors import OwnExpert, TokenMixture
from mixdpo.policy.choosing import inverse_cdf
from mixdpo.policy.decoding import write
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.products import ready
from mixdpo.policy.slots import fits
from mixdpo.policy.tokens import encode_prompts
from mixdpo.progress import track

if TYPE_CHECKING:
    from mixdpo.policy.mixture import MixturePolicy

MODES = ("sequence", "token", "argmax")


class Generations(NamedTuple):
    """What was written, row by row."""

    texts: list[str]  # completions, without the prompt
    finished: list[bool]  # ended by itself, not cut at max_new_tokens
    experts: list[int]  # who wrote it; −1 where all did together (mode `token`)
    dropped: list[float]  # share of the weights that `top` took from the other experts; 0 without it


def generate(
    policy: MixturePolicy,
    prompts: Sequence[str],
    expert: int | None,
    annotators: Sequence[str | None] | None,
    metadata: Mapping[str, Sequence[Any]] | None,
    mode: str,
    weights: Tensor | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    batch: int,
    top: int | None = None,
    first: int = 0,
) -> Generations:
    """`MixturePolicy.generate`; see there."""
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r} is not one of {', '.join(MODES)}; choose one of them")
    if expert is not None and not 0 <= expert < policy.experts:
        raise ConfigError(f"expert {expert} does not exist: this mixture has experts 0 to {policy.experts - 1}")
    if batch < 1 or max_new_tokens < 0:
        raise ConfigError(
            f"batch is {batch} and max_new_tokens {max_new_tokens}; expected at least 1 row at once and 0 new tokens"
        )
    if first < 0:
        raise ConfigError(f"first is {first}; expected 0 or more, the place of the first prompt in the longer list")
    if not prompts:
        return Generations([], [], [], [])
    uniforms = row_uniforms(seed, first, len(prompts), max_new_tokens + 1)
    log_weights = _log_weights(policy, prompts, expert, annotators, metadata, weights)
    log_weights, dropped = top_experts(log_weights, policy.experts if top is None else top)
    together = mode == "token" and expert is None and policy.experts > 1
    drawn = inverse_cdf(log_weights.exp(), uniforms[:, -1])
    authors = log_weights.argmax(dim=-1) if mode == "argmax" else drawn
    ids = encode_prompts(policy.tokenizer, prompts)
    refuse_cut(ids, max_new_tokens, policy.reference.context)
    eos = policy.tokenizer.eos_token_id
    completions: list[list[int]] = [[] for _ in prompts]

    def written() -> Generator[tuple[int, list[int]]]:
        for rows, models in _groups(policy, authors, log_weights, together):
            own = [ids[row] for row in rows]
            slots, positions = min(batch, len(rows)), max(map(len, own)) + max_new_tokens
            for model in models:
                fits(model.trunk)  # tried with the layers as they are
            with ready(models, max_new_tokens * math.ceil(len(rows) / slots), slots) as heads:
                writers: OwnExpert | TokenMixture
                if together:
                    writers = TokenMixture(policy, log_weights[rows], heads, slots, positions)
                else:
                    writers = OwnExpert(policy, authors[rows], heads, slots, positions)
                for row, completion in write(writers, own, uniforms[rows, :-1], temperature, top_p, eos):
                    yield rows[row], completion

    if max_new_tokens:
        with torch.inference_mode(), policy.autocast(), closing(written()) as rows:
            for row, completion in track(rows, "generating", total=len(prompts)):
                completions[row] = completion
    finished = [bool(row) and row[-1] == eos for row in completions]
    texts = policy.tokenizer.batch_decode(
        [row[:-1] if end else row for row, end in zip(completions, finished, strict=True)]
    )
    experts = [-1] * len(texts) if together else authors.tolist()
    return Generations(texts, finished, experts, dropped.tolist())


def refuse_cut(prompts: Sequence[Sequence[int]], max_new_tokens: int, context: int | None) -> None:
    """Raise ConfigError where a prompt leaves no room for what may be written after it.

    Args:
        prompts: token ids of each.
        context: how many positions the model reads, if that is known.
    """
    longest = max(map(len, prompts))
    if context is not None and longest + max_new_tokens > context:
        raise ConfigError(
            f"a prompt of {longest} tokens and max_new_tokens {max_new_tokens} do not fit the {context} positions that "
            f"the model reads; lower max_new_tokens or shorten the prompts"
        )


def row_uniforms(seed: int, first: int, rows: int, columns: int) -> Tensor:
    """Rows `first`, `first` + 1, … of the table of uniform numbers that a seed stands for: (rows, columns), float64.

    One number for each row and step, so that a text depends neither on the rows beside it nor on how many are drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    left = first * columns
    while left:  # the generator knows no way but through the rows before, 5 ns a number
        skipped = min(left, 1 << 20)
        torch.rand(skipped, generator=generator, dtype=torch.float64)
        left -= skipped
    return torch.rand((rows, columns), generator=generator, dtype=torch.float64)


def _log_weights(
    policy: MixturePolicy,
    prompts: Sequence[str],
    expert: int | None,
    annotators: Sequence[str | None] | None,
    metadata: Mapping[str, Sequence[Any]] | None,
    weights: Tensor | None,
) -> Tensor:
    """(prompts, experts) on the CPU."""
    if expert is not None:
        only = torch.full((len(prompts), policy.experts), float("-inf"))
        only[:, expert] = 0.0
        return only
    if weights is None:
        return policy.log_weights(prompts, annotators, metadata).cpu()
    if weights.shape[-1] != policy.experts:
        raise ConfigError(f"weights are for {weights.shape[-1]} experts but this mixture has {policy.experts}")
    if weights.dim() == 2 and len(weights) != len(prompts):
        raise ConfigError(
            f"{len(weights)} rows of weights for {len(prompts)} prompts; give one row a prompt, or one for all"
        )
    given = weights.detach().cpu()
    total = given.sum(dim=-1, keepdim=True)
    # `not total > 0` refuses NaN too
    if (given < 0).any() or not (total > 0).all():
        raise ConfigError("weights must be at least 0 and sum to more than 0; give shares, as `personalise` does")
    return (given / total).log().expand(len(prompts), -1)


def _groups(
    policy: MixturePolicy, authors: Tensor, log_weights: Tensor, together: bool
) -> Iterator[tuple[list[int], list[SharedTrunk]]]:
    """Rows that can run in one batch, with the models that they need: all, or those of one model after another."""
    models = [model for model, _ in policy.expert_models.models()]
    everyone = list(range(len(authors)))
    if together:
        wanted = (log_weights > float("-inf")).any(dim=0).nonzero()[:, 0].tolist()
        yield everyone, list(dict.fromkeys(models[expert] for expert in wanted))
    elif isinstance(policy.expert_models, SharedTrunk):
        yield everyone, [policy.expert_models]
    else:
        for expert in authors.unique().tolist():
            yield (authors == expert).nonzero()[:, 0].tolist(), [models[expert]]
