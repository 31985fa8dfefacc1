"""What a frozen trunk makes of the rows of a run, computed once: each later step costs the heads alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixdpo.policy.experts import Experts, SharedTrunk
from mixdpo.policy.scoring import BATCH_TOKENS, prompt_batches
from mixdpo.policy.tokens import TokenRow, pad

# bytes that a run may hold; more than that is computed at every step
ROOM = 1 << 30

Key = tuple[tuple[int, ...], tuple[int, ...]]


class TrunkStates:
    """States that predict the completion tokens of many rows; equal rows are held once.

    They do not depend on which rows share a batch at which step, so a resumed run sees what an uninterrupted one saw.
    """

    def __init__(
        self, trunk: SharedTrunk, rows: Sequence[TokenRow], device: torch.device, precision: torch.dtype
    ) -> None:
        different = {key_of(row): row for row in rows}
        self.rows: dict[Key, Tensor] = {}
        ordered = list(different.values())
        mixed = torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16)
        with torch.no_grad(), mixed:
            for places in prompt_batches(ordered, BATCH_TOKENS):
                batch = [ordered[place] for place in places]
                states = trunk.completion_states(pad(batch, device))
                parts = states.split([len(row.completion) for row in batch])
                self.rows |= {key_of(row): part for row, part in zip(batch, parts, strict=True)}

    def __call__(self, rows: Sequence[TokenRow]) -> Tensor:
        """(completion tokens, width), in the order of `pad(rows)`."""
        return torch.cat([self.rows[key_of(row)] for row in rows])


def frozen_states(
    experts: Experts, rows: Sequence[TokenRow], device: torch.device, precision: torch.dtype, room: int = ROOM
) -> TrunkStates | None:
    """States of these rows; None where the trunk learns, is not one for all experts, or they need more than `room`."""
    if not isinstance(experts, SharedTrunk) or any(part.requires_grad for part in experts.trunk.parameters()):
        return None
    tokens = sum(len(completion) for _, completion in {key_of(row) for row in rows})
    width = experts.trunk.get_input_embeddings().weight.shape[1]
    return TrunkStates(experts, rows, device, precision) if 4 * tokens * width <= room else None


def key_of(row: TokenRow) -> Key:
    """The same for rows of the same content."""
    return tuple(row.prompt), tuple(row.completion)
