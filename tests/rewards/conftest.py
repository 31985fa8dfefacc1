from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mixdpo.config.models import RewardTraining
from mixdpo.data.schema import REVIEWS, role_of, split_of, text_id
from mixdpo.files import canonical_json
from mixdpo.rewards.labels import Example

GOOD, BAD = ("great", "superb", "moving", "lovely"), ("awful", "boring", "clumsy", "tired")
THINGS = ("plot", "cast", "score", "ending", "hero", "scene", "camera", "dialogue")


def write(generator: np.random.Generator, label: int) -> str:
    words = GOOD if label else BAD
    sentences = [
        f"The {generator.choice(THINGS)} of this {generator.choice(THINGS)} was {generator.choice(words)} and "
        f"the {generator.choice(THINGS)} {number} felt {generator.choice(words)}."
        for number in generator.integers(0, 1000, size=2)
    ]
    return " ".join(sentences)


def reviews_table(count: int, seed: int = 0) -> pa.Table:
    generator = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        text = write(generator, place % 2)
        metadata = canonical_json({"votes": place % 5, "name": "x"}).decode()
        identifier = text_id(text)
        rows.append(
            {
                "review_id": identifier,
                "text": text,
                "domain": ("movie", "book")[place % 3 == 0],
                "stars": None,
                "label": place % 2,
                "user_id": None,
                "split": split_of(identifier, 0.2, 0.2),
                "metadata": metadata,
            }
        )
    return pa.Table.from_pylist(rows, schema=REVIEWS)


@pytest.fixture(scope="session")
def reviews() -> pa.Table:
    return reviews_table(400)


@pytest.fixture(scope="session")
def examples(reviews) -> list[Example]:
    return [
        Example(row["text"], float(row["label"]), row["split"], role_of(row["review_id"]))
        for row in reviews.to_pylist()
    ]


@pytest.fixture(scope="session")
def settings() -> RewardTraining:
    return RewardTraining(
        vocabulary=500,
        layers=1,
        width=32,
        heads=2,
        max_tokens=64,
        snippet_words=(8, 40),
        epochs=4,
        batch=16,
        learning_rate=5e-3,
    )
