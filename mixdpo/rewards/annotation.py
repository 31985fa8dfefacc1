"""Score many texts with one reward model, shard by shard, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixdpo.files import replacing
from mixdpo.rewards.model import RewardModel

SHARD = 8192  # texts


def score_in_shards(
    model: RewardModel, texts: Sequence[str], batch_tokens: int, work: Path, what: str
) -> NDArray[np.float64]:
    """Scores in [0, 1], (texts,); each finished shard is kept in `work`, whose key must cover model and texts."""
    shards = []
    for start in range(0, len(texts), SHARD):
        path = work / f"{start:09d}.npy"
        if not path.is_file():
            part = texts[start : start + SHARD]
            scores = model.score(part, batch_tokens, what=f"{what}, {start}–{start + len(part)} of {len(texts)}")
            with replacing(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, scores, allow_pickle=False)
        shards.append(np.load(path, allow_pickle=False))
    return np.concatenate(shards) if shards else np.empty(0)
