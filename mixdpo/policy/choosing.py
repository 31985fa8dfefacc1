"""From next-token scores to tokens: greedy, or a draw by the inverse of the distribution function."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 128  # tokens summed first: only the block that holds a draw is summed token by token
NUCLEUS = 256  # tokens sorted first: a nucleus is mostly smaller


def choose(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token a row: (rows, vocabulary) and (rows,) → (rows,).

    Args:
        logits: log-probs up to a constant a row.
        uniforms: in [0, 1), float64: the token at which the distribution function, in the order of ids, passes it.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    probs = torch.softmax(logits if temperature == 1 else logits / temperature, dim=-1)
    if top_p < 1:
        kept, ids = nucleus(probs, top_p)
        return ids.gather(-1, inverse_cdf(kept, uniforms)[:, None])[:, 0]
    return inverse_cdf(probs, uniforms)


def nucleus(probs: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The likeliest tokens of each row: probabilities and ids, both (rows, candidates), by id; 0 for what is outside.

    A token is inside while the mass before it is below `top_p`, so that the first always is.
    """
    candidates = min(NUCLEUS, probs.shape[-1])
    while True:
        likeliest, ids = probs.topk(candidates)
        if candidates == probs.shape[-1] or bool((likeliest.sum(dim=-1) >= top_p).all()):
            break
        candidates = min(8 * candidates, probs.shape[-1])
    kept = torch.where(likeliest.cumsum(dim=-1) - likeliest < top_p, likeliest, 0.0)
    ids, order = ids.sort(dim=-1)
    return kept.gather(-1, order), ids


def inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one index a row by its uniform number: (rows, indices) and (rows,) → (rows,); sums may be any."""
    vocabulary = probs.shape[-1]
    blocks, rest = divmod(vocabulary, BLOCK)
    if blocks < 2:
        return _passed(probs.double().cumsum(dim=-1), uniforms)[0]
    sums = probs[:, : vocabulary - rest].unflatten(-1, (blocks, BLOCK)).sum(dim=-1).double()
    if rest:
        sums = torch.cat([sums, probs[:, vocabulary - rest :].sum(dim=-1, keepdim=True)], dim=-1)
    block, share = _passed(sums.cumsum(dim=-1), uniforms)
    index = block[:, None] * BLOCK + torch.arange(BLOCK, device=probs.device)
    within = probs.gather(-1, index.clamp_max(vocabulary - 1)).double().masked_fill_(index >= vocabulary, 0.0)
    return block * BLOCK + _passed(within.cumsum(dim=-1), share)[0]


def _passed(cumulative: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row passes its share of the total, and which share of that entry lies before: (rows,) each."""
    total = cumulative[:, -1:]
    # below the total, so that an entry passes it: an entry of probability 0 passes nothing
    threshold = torch.minimum(uniforms.to(cumulative)[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(cumulative, threshold, right=True)
    after = cumulative.gather(-1, place)
    before = torch.where(place > 0, cumulative.gather(-1, (place - 1).clamp_min(0)), 0.0)
    return place[:, 0], ((threshold - before) / (after - before))[:, 0]
