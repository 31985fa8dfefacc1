"""The scheduler: a fixed number of rows is written at once, and who has ended makes room for the next prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mixdpo.policy.authors import OwnExpert, TokenMixture
from mixdpo.policy.choosing import choose
from mixdpo.policy.slots import distinct, survivors


def write(
    authors: OwnExpert | TokenMixture,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    temperature: float,
    top_p: float,
    eos: int | None,
) -> Iterator[tuple[int, list[int]]]:
    """Yield (row, token ids written after its prompt) as rows end; EOS is among them where it came.

    Long prompts go first: rows that lie together are then about equally long. Those of one prompt follow each other, so
    that most of them start together, which shares it.

    Args:
        uniforms: (prompts, new tokens), one number in [0, 1) for each.
    """
    most = uniforms.shape[-1]
    _, same = distinct(prompts)
    waiting = deque(sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), same[row], row)))
    rows: list[int] = []  # at each place
    written: dict[int, list[int]] = {}
    tokens = torch.empty(0, dtype=torch.long, device=authors.device)
    while waiting or rows:
        new = [waiting.popleft() for _ in range(min(authors.room, len(waiting)))]
        rows += new
        written |= {row: [] for row in new}
        places, logits = authors.step(tokens, [(row, prompts[row]) for row in new])
        draws = uniforms[rows, [len(written[row]) for row in rows]].to(authors.device)
        tokens = torch.empty_like(places)
        tokens[places] = choose(logits, draws[places], temperature, top_p)
        gone = []
        for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            written[row].append(token)
            if token == eos or len(written[row]) == most:
                gone.append(place)
        if len(gone) < len(rows):
            authors.observe(tokens)
        for place in gone:
            yield rows[place], written.pop(rows[place])
        if gone:
            order = survivors(len(rows), gone)
            authors.keep(order)
            rows, tokens = [rows[place] for place in order], tokens[order]
