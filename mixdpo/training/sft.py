"""Supervised fine-tuning on reviews: the reference that all experts start from (method.md §8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.errors import ConfigError, TrainingError
from mixdpo.policy.experts import split_causal_lm
from mixdpo.policy.head_logps import linear_logps
from mixdpo.policy.heads import as_product
from mixdpo.policy.packing import fuse_activations, trunk_states
from mixdpo.policy.tokens import TokenRow, context_of, length_sorted_batches, pad
from mixdpo.progress import track
from mixdpo.training.checkpoint import load_checkpoint, save_checkpoint
from mixdpo.training.schedule import adamw, set_learning_rate

if TYPE_CHECKING:
    from mixdpo.config.models import SFT

# body, head and its bias
Parts = tuple[PreTrainedModel, Tensor, Tensor | None]

CHECKPOINT_EVERY = 200
EVALUATION_TOKENS = 8192
WARMUP = 0.05


class SFTResult(NamedTuple):
    train_loss: float  # nats a token, mean over the last epoch
    validation_loss: float  # nats a token
    steps: int
    tokens: int  # training tokens an epoch


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[str],
    validation: Sequence[str],
    settings: SFT,
    seed: int,
    device: torch.device,
    precision: torch.dtype,
    checkpoint: Path | None = None,
) -> SFTResult:
    """Fine-tune `model` in place on whole reviews, each between BOS and EOS, cut at settings.max_tokens.

    Raises:
        TrainingError: no reviews, or the loss is not finite.
        ModelError: the model has no plain output head (`split_causal_lm`).
        ConfigError: max_tokens is more than the model reads.
    """
    if not train or not validation:
        raise TrainingError(f"{len(train)} training and {len(validation)} validation reviews; both splits need some")
    context = context_of(model)
    if context is not None and settings.max_tokens > context:
        raise ConfigError(
            f"sft.max_tokens is {settings.max_tokens} but the model reads at most {context}; lower it in params.yaml"
        )
    rows = _token_rows(tokenizer, train, settings.max_tokens)
    held_out = _token_rows(tokenizer, validation, settings.max_tokens)
    # evaluation mode throughout: without dropout a resumed run equals an uninterrupted one
    model.to(device).eval()
    parts = split_causal_lm(model)
    fuse_activations(parts[0])
    optimizer = adamw([{"params": list(model.parameters()), "lr": settings.learning_rate}], 0.01)
    batches = _batches([len(row) for row in rows], settings.batch, settings.epochs, seed)
    state = load_checkpoint(checkpoint, model, optimizer) if checkpoint else None
    losses: list[float] = state["losses"] if state else []
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16)
    for step in track(range(len(losses), len(batches)), "fine-tuning", total=len(batches), done=len(losses)):
        set_learning_rate(optimizer, step, len(batches), WARMUP)
        with autocast:
            total, count = _loss(parts, [rows[place] for place in batches[step]], device)
        loss = total / count
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise TrainingError(f"the loss of step {step + 1} is not finite; lower sft.learning_rate in params.yaml")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if checkpoint and (step + 1) % CHECKPOINT_EVERY == 0:
            save_checkpoint(checkpoint, model, optimizer, {"losses": losses})
    last_epoch = losses[-max(1, len(batches) // max(1, settings.epochs)) :]
    train_loss = sum(last_epoch) / len(last_epoch) if last_epoch else _mean_loss(parts, rows[:1000], device)
    return SFTResult(train_loss, _mean_loss(parts, held_out, device), len(batches), sum(map(len, rows)))


def _token_rows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    rows = [(start + row + end)[:max_tokens] for row in ids]
    return [row for row in rows if len(row) > 1]  # one token predicts nothing


def _batches(lengths: Sequence[int], size: int, epochs: int, seed: int) -> list[list[int]]:
    """Every row once an epoch; rows of a batch have similar lengths, batches come in random order."""
    batches: list[list[int]] = []
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        noise = torch.rand(len(lengths), generator=generator).tolist()
        # lengths blurred by a tenth, so that batches differ from epoch to epoch
        order = sorted(range(len(lengths)), key=lambda row: lengths[row] * (0.9 + 0.2 * noise[row]))
        epoch_batches = [order[start : start + size] for start in range(0, len(order), size)]
        batches += [epoch_batches[i] for i in torch.randperm(len(epoch_batches), generator=generator).tolist()]
    return batches


def _loss(model: Parts, rows: Sequence[list[int]], device: torch.device) -> tuple[Tensor, int]:
    """Summed next-token loss (nats) and number of predicted tokens of some rows."""
    trunk, weight, bias = model
    batch = pad([TokenRow(row[:1], row[1:]) for row in rows], device)
    states = trunk_states(trunk, batch.input_ids, batch.layout)
    predicting = as_product(states[batch.layout.places.to(device)[batch.row, batch.position]], weight)
    logps = linear_logps(predicting, batch.target, weight[None], None if bias is None else bias[None])
    return -logps.sum(), len(batch.target)


@torch.no_grad()
def _mean_loss(model: Parts, rows: Sequence[list[int]], device: torch.device) -> float:
    total, count = 0.0, 0
    for places in length_sorted_batches([len(row) for row in rows], EVALUATION_TOKENS):
        part, tokens = _loss(model, [rows[place] for place in places], device)
        total, count = total + part.item(), count + tokens
    return total / count
