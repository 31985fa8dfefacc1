"""`mixdpo rewards`: annotators' and judges' models of every dimension, measured → data/rewards/DIMENSION/ROLE."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mixdpo.compute import Compute, prepare_compute
from mixdpo.config import Params
from mixdpo.config.models import Dimension, FileLabels, PretrainedReward
from mixdpo.data.schema import REVIEWS, read_table
from mixdpo.data.tables import find_files
from mixdpo.files import digest, file_digest, read_json, replacing, write_json
from mixdpo.layout import Layout
from mixdpo.rewards.labels import Example, read_examples
from mixdpo.rewards.model import CARD, RewardModel
from mixdpo.rewards.quality import agreement, quality
from mixdpo.rewards.training import train_reward_model

ROLES = ("annotator", "judge")


def run(params: Params, layout: Layout) -> list[Path]:
    """Train or fetch all reward models and measure each on held-out texts.

    A model that was finished before an interruption is not trained again.

    Raises:
        DataError: the labelled data is not what it should be. ModelError: a named model does not fit or is not there.
    """
    compute = prepare_compute(params.compute)
    inputs = layout.root / params.inputs
    reviews = read_table(layout.validated("reviews"), REVIEWS)
    work = layout.work("rewards", _key(params, layout, inputs))
    figures = {}
    for name, dimension in params.rewards.dimensions.items():
        examples = read_examples(dimension.labels, reviews, inputs, params.splits, params.seed)
        for role in ROLES:
            if not (work / name / role / CARD).is_file():
                _make(name, dimension, role, examples, params, inputs, compute, work / name / role)
        figures[name] = _measure(work / name, name, examples, params.rewards.batch_tokens, compute)
    with replacing(layout.rewards) as target:
        shutil.copytree(work, target)
    write_json(layout.metrics("rewards"), {"schema": 1, "dimensions": figures})
    shutil.rmtree(work)
    return [layout.rewards, layout.metrics("rewards")]


def _key(params: Params, layout: Layout, inputs: Path) -> str:
    """A digest of all that the models depend on."""
    sources = [source for dimension in params.rewards.dimensions.values() for source in dimension.labels]
    files = [
        file_digest(path) for each in sources if isinstance(each, FileLabels) for path in find_files(each.paths, inputs)
    ]
    settings = params.model_dump(mode="json", include={"seed", "compute", "splits", "rewards"})
    return digest([settings, file_digest(layout.validated("reviews")), files])


def _make(
    name: str,
    dimension: Dimension,
    role: str,
    examples: list[Example],
    params: Params,
    inputs: Path,
    compute: Compute,
    directory: Path,
) -> None:
    """Write one model with a card that lacks only its quality."""
    source = dimension.annotator if role == "annotator" else dimension.judge
    card: dict[str, Any] = {"schema": 1, "dimension": name, "role": role}
    if isinstance(source, PretrainedReward):
        model = RewardModel.load(source, compute, inputs)
        card |= {"base": source.model, "revision": source.revision}
    else:
        model, report = train_reward_model(examples, name, role, params.rewards.training, params.seed, compute)
        card |= {"base": None, "revision": None, "training": report}
    with replacing(directory) as target:
        model.save(target, card)


def _measure(
    directory: Path, name: str, examples: list[Example], batch_tokens: int, compute: Compute
) -> dict[str, Any]:
    """Quality of both roles on the test texts, which neither has seen, and how far they agree; fills in the cards."""
    test = [example for example in examples if example.split == "test"]
    texts, targets = [example.text for example in test], np.array([example.target for example in test])
    scores, figures = {}, {}
    for role in ROLES:
        model = RewardModel.load(directory / role, compute)
        scores[role] = model.score(texts, batch_tokens, what=f"measuring {name}, {role}")
        card = read_json(directory / role / CARD)
        card["quality"] = quality(scores[role], targets)
        write_json(directory / role / CARD, card)
        sizes = card.get("training", {})
        figures[role] = {**card["quality"], "temperature": card["temperature"]} | {
            key: sizes[key] for key in ("train_texts", "validation_texts") if key in sizes
        }
    return {**figures, "agreement": agreement(scores["annotator"], scores["judge"])}
