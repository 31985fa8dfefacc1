"""Writing token by token with a KV cache, rows of different experts in one batch (method.md §7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mixdpo.policy.experts import SharedTrunk

if TYPE_CHECKING:
    from mixdpo.policy.mixture import MixturePolicy


class Decoder:
    """One trunk's running state over those rows of a batch that it writes: its KV cache."""

    def __init__(self, model: SharedTrunk, rows: Tensor) -> None:
        self.model = model
        self.rows = rows  # places in the batch, ascending
        self.cache: Any = None

    def step(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """Feed tokens of the whole batch (rows, new positions); → state at the last position (own rows, width)."""
        out = self.model.trunk(
            input_ids=input_ids[self.rows],
            attention_mask=attention_mask[self.rows],
            position_ids=position_ids[self.rows],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = out.past_key_values
        last: Tensor = out.last_hidden_state[:, -1]
        return last

    def keep(self, rows: Tensor) -> None:
        """The batch shrinks to `rows` (ascending)."""
        stay = torch.isin(self.rows, rows)
        self.cache.batch_select_indices(stay.nonzero()[:, 0])
        self.rows = torch.searchsorted(rows, self.rows[stay])


class OwnExpert:
    """Each row is written by its own expert; all rows are of one trunk."""

    def __init__(self, policy: MixturePolicy, authors: Tensor) -> None:
        models = list(policy.expert_models.models())
        self.device = policy.device
        self.decoder = Decoder(models[int(authors[0])][0], torch.arange(len(authors), device=self.device))
        self.heads = torch.tensor([models[int(author)][1] for author in authors])

    def next_log_probs(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """Log-probs of the next token: (rows, vocabulary)."""
        model, state_RD = self.decoder.model, self.decoder.step(input_ids, attention_mask, position_ids)
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
        self.decoder.keep(rows)
        self.heads = self.heads[rows.cpu()]


class TokenMixture:
    """p(y_t | y_<t, x) = Σ_k v_k π_k(y_t | y_<t, x), with v_k ∝ w_k π_k(y_<t | x) updated at each token.

    An expert runs only for the rows that give it weight, so that what sparsity dropped costs nothing.
    """

    def __init__(self, policy: MixturePolicy, log_weights: Tensor) -> None:
        self.device = policy.device
        self.posterior = log_weights.to(policy.device, torch.float32)
        self.heads: list[list[tuple[int, int]]] = []  # of each decoder: (expert, its head there)
        trunks: list[SharedTrunk] = []
        for expert, (model, head) in enumerate(policy.expert_models.models()):
            known = next((place for place, trunk in enumerate(trunks) if trunk is model), len(trunks))
            if known == len(trunks):
                trunks.append(model)
                self.heads.append([])
            self.heads[known].append((expert, head))
        self.decoders = [
            Decoder(trunk, self._takes_part()[:, [expert for expert, _ in heads]].any(dim=-1).nonzero()[:, 0])
            for trunk, heads in zip(trunks, self.heads, strict=True)
        ]
        self.expert_log_probs: Tensor | None = None

    def next_log_probs(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        """Log-probs of the next token: (rows, vocabulary)."""
        each: Tensor | None = None
        takes_part = self._takes_part()
        for decoder, heads in zip(self.decoders, self.heads, strict=True):
            if not len(decoder.rows):
                continue
            state_RD = decoder.step(input_ids, attention_mask, position_ids)
            for expert, head in heads:
                wanted = takes_part[decoder.rows, expert]
                part = decoder.model.heads.one(state_RD[wanted], head).float().log_softmax(-1)
                if each is None:
                    shape = (*self.posterior.shape, part.shape[-1])
                    each = part.new_full(shape, float("-inf"))
                each[decoder.rows[wanted], expert] = part
        assert each is not None
        self.expert_log_probs = each
        return torch.logsumexp(self.posterior[..., None] + each, dim=1)

    def observe(self, tokens: Tensor) -> None:
        """Each expert's share grows with how likely it found what was written."""
        assert self.expert_log_probs is not None
        said = self.expert_log_probs.gather(-1, tokens[:, None, None].expand(-1, self.posterior.shape[-1], 1))
        self.posterior = torch.log_softmax(self.posterior + said.squeeze(-1), dim=-1)

    def keep(self, rows: Tensor) -> None:
        self.posterior = self.posterior[rows]
        for decoder in self.decoders:
            if len(decoder.rows):
                decoder.keep(rows)

    def _takes_part(self) -> Tensor:
        """(rows, experts): whether an expert has any weight in a row."""
        return self.posterior > float("-inf")


def decode(
    mixing: OwnExpert | TokenMixture,
    prompts: list[list[int]],
    uniforms: Tensor,
    temperature: float,
    top_p: float,
    eos: int | None,
) -> list[list[int]]:
    """Token ids written after each prompt, EOS included where it came.

    Args:
        uniforms: (prompts, new tokens + 1), one number in [0, 1) for each token; the last is not used here.
    """
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
        log_probs = mixing.next_log_probs(input_ids, mask, positions)
        tokens = choose(log_probs, uniforms[alive, step], temperature, top_p)
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
            mixing.keep(rows)
            alive, done, mask, positions, input_ids = (t[rows] for t in (alive, done, mask, positions, input_ids))
    return written


def choose(log_probs: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token a row: (rows, vocabulary) and (rows,) → (rows,)."""
    if temperature == 0:
        return log_probs.argmax(dim=-1)
    probs = torch.softmax(log_probs / temperature, dim=-1)
    if top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        # a token stays while the mass before it is below top_p, so that the first always does
        ordered = torch.where(ordered.cumsum(dim=-1) - ordered < top_p, ordered, 0.0)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered)
    return inverse_cdf(probs, uniforms)


def inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one index a row by its uniform number; the rows need not be normalised."""
    cumulative = probs.double().cumsum(dim=-1)
    threshold = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
    # right=True skips entries of probability 0; the clamp guards the last bit of rounding
    index = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return index.clamp_max(probs.shape[-1] - 1)
