"""Drawing from the mixture with a KV cache, rows of different experts in one batch (method.md §7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mixdpo.errors import ConfigError
from mixdpo.policy.experts import SharedTrunk
from mixdpo.policy.tokens import context_of, encode_prompts
from mixdpo.progress import track

if TYPE_CHECKING:
    from mixdpo.policy.mixture import MixturePolicy

MODES = ("sequence", "token", "argmax")


class Generations(NamedTuple):
    """What was written, row by row."""

    texts: list[str]  # completions, without the prompt
    finished: list[bool]  # ended by itself, not cut at max_new_tokens
    experts: list[int]  # who wrote it; −1 where all did together (mode `token`)


class _Decoder:
    """One trunk's running state over a batch of rows: its KV cache."""

    def __init__(self, model: SharedTrunk) -> None:
        self.model = model
        self.cache: Any = None

    def step(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """Feed tokens (rows, new positions); → state at the last position (rows, width)."""
        out = self.model.trunk(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = out.past_key_values
        last: Tensor = out.last_hidden_state[:, -1]
        return last

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)


def generate(
    policy: MixturePolicy,
    prompts: Sequence[str],
    expert: int | None,
    annotators: Sequence[str] | None,
    mode: str,
    weights: Tensor | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    batch: int,
) -> Generations:
    """`MixturePolicy.generate`; see there."""
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r} is not one of {', '.join(MODES)}; choose one of them")
    if expert is not None and not 0 <= expert < policy.experts:
        raise ConfigError(f"expert {expert} does not exist: this mixture has experts 0 to {policy.experts - 1}")
    if not prompts:
        return Generations([], [], [])
    generator = torch.Generator().manual_seed(seed)
    # one uniform number for each row and step, so that the texts do not depend on how rows are batched
    uniforms = torch.rand((len(prompts), max_new_tokens + 1), generator=generator, dtype=torch.float64)
    log_weights = _log_weights(policy, prompts, expert, annotators, weights)
    together = mode == "token" and expert is None and policy.experts > 1
    drawn = _inverse_cdf(log_weights.exp(), uniforms[:, -1])
    authors = log_weights.argmax(dim=-1) if mode == "argmax" else drawn
    groups = _groups(policy, authors, together)
    ids = encode_prompts(policy.tokenizer, prompts)
    context, longest = context_of(policy.reference.trunk), max(map(len, ids))
    if context is not None and longest + max_new_tokens > context:
        raise ConfigError(
            f"a prompt of {longest} tokens and max_new_tokens {max_new_tokens} do not fit the {context} positions that "
            f"the model reads; lower max_new_tokens or shorten the prompts"
        )
    completions: list[list[int]] = [[] for _ in prompts]
    batches = [group[start : start + batch] for group in groups for start in range(0, len(group), batch)]
    with torch.inference_mode(), policy.autocast():
        for rows in track(batches, "generating"):
            mixing = _TokenMixture(policy, log_weights[rows]) if together else _OwnExpert(policy, authors[rows])
            written = _decode(
                mixing, [ids[row] for row in rows], uniforms[rows], temperature, top_p, policy.tokenizer.eos_token_id
            )
            for row, completion in zip(rows, written, strict=True):
                completions[row] = completion
    eos = policy.tokenizer.eos_token_id
    finished = [bool(row) and row[-1] == eos for row in completions]
    texts = policy.tokenizer.batch_decode(
        [row[:-1] if end else row for row, end in zip(completions, finished, strict=True)]
    )
    return Generations(texts, finished, [-1] * len(texts) if together else authors.tolist())


class _OwnExpert:
    """Each row is written by its own expert. All rows share one trunk (`_groups` sees to that)."""

    def __init__(self, policy: MixturePolicy, authors: Tensor) -> None:
        models = list(policy.expert_models.models())
        self.device = policy.device
        self.decoders = [_Decoder(models[int(authors[0])][0])]
        self.heads = torch.tensor([models[int(author)][1] for author in authors])

    def next_log_probs(self, states: list[Tensor]) -> Tensor:
        model, state_RD = self.decoders[0].model, states[0]
        logits: Tensor | None = None
        for head in self.heads.unique().tolist():
            rows = (self.heads == head).nonzero()[:, 0].to(state_RD.device)
            part = model.heads.one(state_RD[rows], head).float()
            if logits is None:
                logits = part.new_empty((len(state_RD), part.shape[-1]))
            logits[rows] = part
        assert logits is not None
        return torch.log_softmax(logits, dim=-1)

    def observe(self, tokens: Tensor) -> None:
        """A row's author does not change with what it wrote."""

    def keep(self, rows: Tensor) -> None:
        self.heads = self.heads[rows.cpu()]


class _TokenMixture:
    """p(y_t | y_<t, x) = Σ_k v_k π_k(y_t | y_<t, x), with v_k ∝ w_k π_k(y_<t | x) updated at each token."""

    def __init__(self, policy: MixturePolicy, log_weights: Tensor) -> None:
        self.models = list(policy.expert_models.models())
        self.device = policy.device
        trunks: list[SharedTrunk] = []
        for model, _ in self.models:
            if not any(model is known for known in trunks):
                trunks.append(model)
        self.decoders = [_Decoder(model) for model in trunks]
        self.posterior = log_weights.to(policy.device, torch.float32)
        self.expert_log_probs: Tensor | None = None

    def next_log_probs(self, states: list[Tensor]) -> Tensor:
        of_trunk = {id(decoder.model): state for decoder, state in zip(self.decoders, states, strict=True)}
        each = [model.heads.one(of_trunk[id(model)], head).float().log_softmax(-1) for model, head in self.models]
        self.expert_log_probs = torch.stack(each, dim=1)
        return torch.logsumexp(self.posterior[..., None] + self.expert_log_probs, dim=1)

    def observe(self, tokens: Tensor) -> None:
        assert self.expert_log_probs is not None
        said = self.expert_log_probs.gather(-1, tokens[:, None, None].expand(-1, self.posterior.shape[-1], 1))
        self.posterior = torch.log_softmax(self.posterior + said.squeeze(-1), dim=-1)

    def keep(self, rows: Tensor) -> None:
        self.posterior = self.posterior[rows]


def _decode(
    mixing: _OwnExpert | _TokenMixture,
    prompts: list[list[int]],
    uniforms: Tensor,
    temperature: float,
    top_p: float,
    eos: int | None,
) -> list[list[int]]:
    """Token ids written after each prompt, EOS included where it came."""
    device = mixing.device
    width = max(map(len, prompts))
    # left padding puts every row's last token at one position; positions count from each row's own first token
    input_ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
    positions = (mask.cumsum(dim=-1) - 1).clamp_min(0)
    alive = torch.arange(len(prompts), device=device)  # rows of the batch still in the decoders' caches
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    written: list[list[int]] = [[] for _ in prompts]
    uniforms = uniforms.to(device)
    steps = uniforms.shape[-1] - 1
    for step in range(steps):
        states = [decoder.step(input_ids, mask, positions) for decoder in mixing.decoders]
        tokens = _choose(mixing.next_log_probs(states), uniforms[alive, step], temperature, top_p)
        mixing.observe(tokens)
        for row, token, over in zip(alive.tolist(), tokens.tolist(), done.tolist(), strict=True):
            if not over:
                written[row].append(token)
        if eos is not None:
            done |= tokens == eos
        left = int((~done).sum())
        if not left or step == steps - 1:
            break
        positions = positions[:, -1:] + 1
        input_ids = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], dim=-1)
        if left <= len(done) // 2:
            rows = (~done).nonzero()[:, 0]
            for decoder in mixing.decoders:
                decoder.keep(rows)
            mixing.keep(rows)
            alive, done, mask, positions, input_ids = (t[rows] for t in (alive, done, mask, positions, input_ids))
    return written


def _choose(log_probs: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token a row: (rows, vocabulary) and (rows,) → (rows,)."""
    if temperature == 0:
        return log_probs.argmax(dim=-1)
    probs = torch.softmax(log_probs / temperature, dim=-1)
    if top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        # a token stays while the mass before it is below top_p, so that the first always does
        ordered = torch.where(ordered.cumsum(dim=-1) - ordered < top_p, ordered, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
    return _inverse_cdf(probs, uniforms)


def _inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one index a row by its uniform number; the rows need not be normalised."""
    cumulative = probs.double().cumsum(dim=-1)
    threshold = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
    # right=True skips entries of probability 0; the clamp guards the last bit of rounding
    index = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return index.clamp_max(probs.shape[-1] - 1)


def _log_weights(
    policy: MixturePolicy,
    prompts: Sequence[str],
    expert: int | None,
    annotators: Sequence[str] | None,
    weights: Tensor | None,
) -> Tensor:
    """(prompts, experts) on the CPU."""
    if expert is not None:
        only = torch.full((len(prompts), policy.experts), float("-inf"))
        only[:, expert] = 0.0
        return only
    if weights is None:
        return policy.log_weights(prompts, annotators).cpu()
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


def _groups(policy: MixturePolicy, authors: Tensor, together: bool) -> list[list[int]]:
    """Rows that can run in one batch: all, or those of one model where experts are independent."""
    if together or isinstance(policy.expert_models, SharedTrunk):
        return [list(range(len(authors)))]
    return [(authors == expert).nonzero()[:, 0].tolist() for expert in authors.unique().tolist()]
