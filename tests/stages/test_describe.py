from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mixdpo.config import Params
from mixdpo.data.embedded import generate_reviews
from mixdpo.data.profile import Profile
from mixdpo.data.schema import REVIEWS, text_id, write_table
from mixdpo.errors import ConfigError, DataError
from mixdpo.layout import Layout
from mixdpo.stages.describe import run


def test_scores_and_preferences_are_described_byte_for_byte_the_same(
    toy_params: Params, toy_project: Layout, tmp_path: Path
) -> None:
    written = []
    for name in ("a", "b"):
        layout = Layout(tmp_path / name)
        for table in ("scores", "preferences"):
            layout.validated(table).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(toy_project.validated(table), layout.validated(table))
        assert run(toy_params, layout, "preferences") == [layout.profile("preferences")]
        written.append(layout.profile("preferences").read_bytes())
    assert written[0] == written[1]
    tables = Profile.model_validate_json(written[0]).tables
    assert {name: table.rows for name, table in tables.items()} == {"scores": 16, "preferences": 24}
    assert {f"margin.{dimension}" for dimension in toy_params.rewards.dimensions} <= tables[
        "preferences"
    ].columns.keys()


def test_reviews_are_described(toy_params: Params, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    rows = [
        {**review, "review_id": text_id(review["text"]), "split": "train", "metadata": "{}"}
        for review in generate_reviews(30, 5, seed=0)
    ]
    write_table(layout.validated("reviews"), rows, REVIEWS)
    run(toy_params, layout, "reviews")
    assert Profile.model_validate_json(layout.profile("reviews").read_bytes()).tables["reviews"].rows == 30


def test_what_cannot_be_described_is_told(toy_params: Params, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no part 'votes' to describe; choose one of reviews, preferences"):
        run(toy_params, Layout(tmp_path), "votes")
    with pytest.raises(DataError, match="run the stage that writes it first"):
        run(toy_params, Layout(tmp_path), "reviews")
