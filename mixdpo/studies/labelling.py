"""One variant's comparisons: annotators with styles look at the world's candidates, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixdpo.config import Params
from mixdpo.data.schema import PREFERENCES
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.stages.preferences import label
from mixdpo.studies.setting import Labelling, Setting
from mixdpo.studies.world import World, with_language

# held-out sets
OWN, PLAIN, CROSSED = "heldout", "plain", "crossed"


@dataclass(frozen=True)
class Comparisons:
    """Who preferred what.

    Attributes:
        train, validation: rows of PREFERENCES.
        heldout: test pairs by the set of prompts they come from.
    """

    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    heldout: dict[str, HeldOut]


def compare(world: World, setting: Setting, seed: int) -> Comparisons:
    """Label pairs as `setting.labelling` says, with annotators drawn from `seed`.

    The held-out annotators and their labels are the same for all variants that ask the same people, whatever was done
    to the scores that the training annotators judged by.
    """
    labelling = setting.labelling
    asked = _asking(world.params, labelling, seed)
    learned_from = label(asked, _scores(world, labelling, seed))
    exact = labelling.scores == "annotator" and not labelling.score_noise
    rows = {split: [row for row in learned_from if row["split"] == split] for split in ("train", "validation")}
    heldout = {OWN: _heldout(learned_from if exact else label(asked, world.candidates))}
    if setting.crossed:
        others = pc.not_equal(world.candidates["split"], "test")
        for name, crossed in ((PLAIN, False), (CROSSED, True)):
            test = with_language(world.crossed_candidates(setting.crossed), crossed)
            heldout[name] = _heldout(label(asked, pa.concat_tables([world.candidates.filter(others), test])))
    return Comparisons(rows["train"], rows["validation"], heldout)


def _asking(params: Params, labelling: Labelling, seed: int) -> Params:
    preferences = params.preferences.model_copy(update={"annotators": labelling.annotators, "styles": labelling.styles})
    return params.model_copy(update={"preferences": preferences, "seed": seed})


def _scores(world: World, labelling: Labelling, seed: int) -> pa.Table:
    """The candidates with the scores that training annotators judge by."""
    table = world.candidates
    generator = np.random.default_rng([seed, 1])  # not the stream of the annotators
    for place, dimension in enumerate(world.dimensions):
        values = world.judged[:, place] if labelling.scores == "judge" else table[dimension].to_numpy()
        noisy = values + generator.normal(scale=labelling.score_noise * values.std(), size=len(values))
        table = table.set_column(table.column_names.index(dimension), dimension, pa.array(noisy))
    return table


def _heldout(rows: list[dict[str, Any]]) -> HeldOut:
    return HeldOut.of(pa.Table.from_pylist([row for row in rows if row["split"] == "test"], schema=PREFERENCES))
