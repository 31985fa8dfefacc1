"""Small tables that pass every rule, for tests to break one thing in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixdpo.config import Params, parse_params
from mixdpo.data.schema import SPLITS, text_id

Row = dict[str, Any]
DEMO = Path(__file__).parents[3] / "profiles" / "demo.yaml"


@pytest.fixture(scope="session")
def params_with() -> Callable[..., Params]:
    """The demo's parameters with `validation` limits that suit small tables, and changes by section."""

    def make(**sections: dict[str, Any]) -> Params:
        values = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
        values["validation"] = {
            "max_bad_fraction": 0.5,
            "min_reviews": 8,
            "min_class_fraction": 0.2,
            "min_pairs_per_annotator": 2,
        }
        for section, changes in sections.items():
            values[section] |= changes
        return parse_params(values)

    return make


@pytest.fixture(scope="session")
def params(params_with: Callable[..., Params]) -> Params:
    return params_with()


@pytest.fixture
def reviews() -> list[Row]:
    """12 reviews, four a split, half of them positive."""
    return [review(f"Review number {number} says something of its own.", number) for number in range(12)]


@pytest.fixture
def scores() -> list[Row]:
    """12 candidates of 6 prompts."""
    rows = []
    for number in range(12):
        prompt = f"Opening {number // 2}"
        rows.append(
            {
                "candidate_id": f"candidate-{number}",
                "prompt_id": text_id(prompt),
                "prompt": prompt,
                "completion": f"and so it went, {number} times",
                "finished": number % 3 > 0,
                "domain": "movie",
                "split": SPLITS[number // 2 % 3],
                "sentiment": number / 11,
                "grammar": 1 - number / 11,
                "informativeness": 0.5 + number / 100,
            }
        )
    return rows


@pytest.fixture
def preferences() -> list[Row]:
    """12 pairs of 6 prompts by 3 annotators, four pairs each, all of one split."""
    return [pair(number) for number in range(12)]


def review(text: str, number: int) -> Row:
    return {
        "review_id": text_id(text),
        "text": text,
        "domain": "book",
        "stars": 1.0 + number % 5,
        "label": number % 2,
        "user_id": None,
        "split": SPLITS[number % 3],
        "metadata": "{}",
    }


def pair(number: int) -> Row:
    prompt = f"Opening {number % 6}"
    return {
        "pair_id": f"pair-{number}",
        "prompt_id": text_id(prompt),
        "prompt": prompt,
        "chosen": f"a good end {number}",
        "rejected": f"a bad end {number}",
        "chosen_finished": True,
        "rejected_finished": False,
        "annotator": f"annotator-{number % 3}",
        "style": None,
        "domain": "movie",
        "split": SPLITS[number % 3],
        "metadata": '{"source": "test"}',
    }
