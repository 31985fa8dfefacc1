"""Random batches in float64: B pairs, K experts, annotators with one to many pairs each."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

# laws are the same on every run; no example database is left behind
settings.register_profile("laws", max_examples=40, deadline=None, derandomize=True, database=None)
settings.load_profile("laws")


class Batch(NamedTuple):
    margins: Tensor  # (pairs, experts)
    log_weights: Tensor  # (experts,) or (pairs, experts)
    groups: Tensor  # (pairs,)


def draw_batch(seed: int, pairs: int, experts: int, annotators: int, scale: float, per_prompt: bool) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    margins = scale * torch.randn(pairs, experts, generator=generator, dtype=torch.float64)
    rows = (pairs, experts) if per_prompt else (experts,)
    log_weights = torch.randn(rows, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    # ids with gaps, in no order: groups need not be 0 … U−1
    groups = 7 * torch.randint(annotators, (pairs,), generator=generator) - 3
    return Batch(margins, log_weights, groups)


@pytest.fixture(scope="session")
def batches() -> st.SearchStrategy[Batch]:
    """What a law must hold for; draw from it with `data.draw(batches)`."""
    return st.builds(
        draw_batch,
        seed=st.integers(0, 2**31),
        pairs=st.integers(1, 7),
        experts=st.integers(1, 4),
        annotators=st.integers(1, 3),
        scale=st.sampled_from([0.1, 1.0, 5.0]),
        per_prompt=st.booleans(),
    )
