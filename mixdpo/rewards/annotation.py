"""Texts of a shard under some reward models: a pure function from table to table, for this process or any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mixdpo.compute import prepare_compute
from mixdpo.errors import DataError
from mixdpo.rewards.model import RewardModel, score_texts

if TYPE_CHECKING:
    from mixdpo.config.models import Device

# what is judged is a prompt and its completion, read as one text
TEXTS = pa.schema([("prompt", pa.string()), ("completion", pa.string())])


@dataclass(frozen=True)
class Annotation:
    """Which reward models score texts, and how; `load` gives the function that does it to a shard.

    Attributes:
        models: column and directory (as `mixdpo rewards` writes it) of each.
        batch_tokens: at most so many at once.
    """

    models: tuple[tuple[str, Path], ...]
    batch_tokens: int
    compute: Device

    def load(self) -> Callable[[pa.Table], pa.Table]:
        """Bring the models into memory; → a function from a shard of TEXTS to its scores, a column a model.

        Raises:
            ModelError: a reward model is not there or does not fit.
        """
        compute = prepare_compute(self.compute)
        models = {name: RewardModel.load(directory, compute) for name, directory in self.models}
        return partial(annotate, models, self.batch_tokens)


def annotate(models: Mapping[str, RewardModel], batch_tokens: int, shard: pa.Table) -> pa.Table:
    """Scores in [0, 1] of prompt and completion together, in the order of the rows: a float64 column a model.

    Raises:
        DataError: a row lacks its prompt or completion. ModelError: a model says of a text what is no finite number.
    """
    for name in TEXTS.names:
        if not pa.types.is_string(kind := shard.schema.field(name).type):
            raise DataError(f"column {name} is {kind}, expected texts; write it as a column of strings")
    texts = pc.binary_join_element_wise(*(shard[name] for name in TEXTS.names), "")
    return pa.table(score_texts(models, texts.to_pylist(), batch_tokens))
