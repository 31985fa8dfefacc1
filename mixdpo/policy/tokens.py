"""From texts to padded token batches: the one way in for training, evaluation and `logps`."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import DataError
from mixdpo.policy.layout import Layout


@dataclass(frozen=True)
class TokenRow:
    """One prompt with one completion, as token ids. The prompt starts with BOS where the tokenizer has one."""

    prompt: list[int]
    completion: list[int]  # ends with EOS where the completion ended by itself

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class TokenBatch:
    """R rows padded on the right. A completion token is predicted from the position before it."""

    input_ids: Tensor  # (rows, positions)
    layout: Layout  # where their tokens lie without padding, prompts that rows share once
    row: Tensor  # (completion tokens,) the row of each completion token
    position: Tensor  # (completion tokens,) the position that predicts it
    target: Tensor  # (completion tokens,) its id

    @property
    def rows(self) -> int:
        return self.layout.rows


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, BOS in front where the tokenizer has one.

    Raises:
        DataError: a prompt is empty and there is no BOS to predict its first token from.
    """
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    ids = [start + row for row in _ids(tokenizer, prompts)]
    for place, row in enumerate(ids):
        if not row:
            raise DataError(f"prompt {place} is empty and the tokenizer has no BOS token; give the prompt some text")
    return ids


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[str],
    finished: Sequence[bool] | None = None,
    max_tokens: int | None = None,
) -> list[TokenRow]:
    """Token ids of prompts and completions, each encoded by itself so that a prompt is always a prefix.

    Args:
        finished: whether each completion ended by itself (EOS is then part of it); None: all did.
        max_tokens: longest prompt and completion together.

    Raises:
        DataError: unequal lengths, a pair above max_tokens, or a completion of no tokens at all.
    """
    if len(prompts) != len(completions):
        raise DataError(f"{len(prompts)} prompts but {len(completions)} completions; give one completion a prompt")
    ends = [True] * len(prompts) if finished is None else list(finished)
    eos = tokenizer.eos_token_id
    rows = []
    for place, (prompt, completion, end) in enumerate(
        zip(encode_prompts(tokenizer, prompts), _ids(tokenizer, completions), ends, strict=True)
    ):
        row = TokenRow(prompt, [*completion, int(eos)] if end and eos is not None else completion)
        if not row.completion:
            raise DataError(f"completion {place} (of prompt {prompts[place]!r}) is empty and did not end; drop the row")
        if max_tokens is not None and len(row) > max_tokens:
            raise DataError(
                f"row {place} (prompt {prompts[place][:60]!r}) has {len(row)} tokens, more than max_tokens "
                f"{max_tokens}; raise training.max_tokens or shorten the text"
            )
        rows.append(row)
    return rows


def context_of(model: PreTrainedModel) -> int | None:
    """How many positions the model reads, where its configuration says so."""
    context: int | None = getattr(model.config, "max_position_embeddings", None)
    return context


def refuse_longer(rows: Sequence[TokenRow], context: int | None) -> None:
    """Raise DataError for a row that the model cannot read."""
    for place, row in enumerate(rows):
        if context is not None and len(row) > context:
            raise DataError(
                f"row {place} has {len(row)} tokens but the model reads at most {context}; shorten the text"
            )


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def pad(rows: Sequence[TokenRow], device: torch.device | str = "cpu") -> TokenBatch:
    """Pad rows to one length. Padding is id 0: it is never attended to, never scored."""
    layout = Layout.of([row.prompt for row in rows], [len(row) for row in rows])
    input_ids = torch.zeros((layout.rows, layout.positions), dtype=torch.long)
    places: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    for place, row in enumerate(rows):
        input_ids[place, : len(row)] = torch.tensor(row.prompt + row.completion)
        first = len(row.prompt) - 1
        places += [place] * len(row.completion)
        positions += range(first, first + len(row.completion))
        targets += row.completion
    flat = (torch.tensor(values, dtype=torch.long).to(device) for values in (places, positions, targets))
    return TokenBatch(input_ids.to(device), layout, *flat)


def length_sorted_batches(
    lengths: Sequence[int], tokens: int, together: Sequence[Hashable] | None = None
) -> Iterator[list[int]]:
    """Places of rows, longest first, in batches of at most `tokens` padded tokens (one row at least).

    Args:
        together: a key a row, such as its prompt: rows with equal keys are neighbours, at the place of the longest.
    """
    keys = range(len(lengths)) if together is None else together
    first: dict[Hashable, int] = {}
    longest: dict[Hashable, int] = {}
    for place, (key, length) in enumerate(zip(keys, lengths, strict=True)):
        first.setdefault(key, place)
        longest[key] = max(length, longest.get(key, 0))
    order = [
        (-longest[key], first[key], -length, place)
        for place, (key, length) in enumerate(zip(keys, lengths, strict=True))
    ]
    batch: list[int] = []
    width = 0
    for *_, place in sorted(order):
        width = max(width, lengths[place])
        if batch and (len(batch) + 1) * width > tokens:
            yield batch
            batch, width = [], lengths[place]
        batch.append(place)
    if batch:
        yield batch
