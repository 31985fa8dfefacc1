"""The stage writes what DVC names, stops without touching what was validated, and says what to do."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from mixdpo.config import Params, parse_params
from mixdpo.data.schema import REVIEWS, SPLITS, read_table, text_id, write_table
from mixdpo.errors import ConfigError, DataError, ValidationStop
from mixdpo.layout import Layout
from mixdpo.stages import validate

DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"


@pytest.fixture
def params() -> Params:
    values = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    values["validation"] |= {"min_reviews": 6, "max_bad_fraction": 0.25}
    return parse_params(values)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def reviews(*faulty: int) -> list[dict[str, Any]]:
    """Eight reviews; those at `faulty` have impossible stars."""
    return [
        {
            "review_id": text_id(f"Review {number}"),
            "text": f"Review {number}",
            "domain": "movie",
            "stars": 6.0 if number in faulty else 4.0,
            "label": number % 2,
            "user_id": None,
            "split": SPLITS[number % 3],
            "metadata": "{}",
        }
        for number in range(8)
    ]


def test_rows_in_are_validated_and_quarantined_rows(params: Params, layout: Layout) -> None:
    write_table(layout.prepared_reviews, reviews(0, 4), REVIEWS)
    written = validate.run(params, layout, "reviews")
    assert written == [
        layout.validated("reviews"),
        layout.quarantine("reviews"),
        layout.validation_page("reviews"),
        layout.metrics("validation-reviews"),
    ]
    validated = read_table(layout.validated("reviews"), REVIEWS)
    assert validated.schema.equals(REVIEWS)
    assert validated.to_pylist() == [row for at, row in enumerate(reviews()) if at not in (0, 4)]
    quarantine = pq.read_table(layout.quarantine("reviews")).to_pylist()
    reason = "stars_in_range: stars are outside 1 to 5"
    assert quarantine == [reviews(0, 4)[at] | {"reason": reason} for at in (0, 4)]
    metrics = json.loads(layout.metrics("validation-reviews").read_text(encoding="utf-8"))
    assert (metrics["schema"], metrics["rows"], metrics["accepted"], metrics["quarantined"]) == (1, 8, 6, 2)


def test_a_stop_leaves_what_was_validated_and_writes_what_explains_it(params: Params, layout: Layout) -> None:
    layout.validated("reviews").parent.mkdir(parents=True)
    layout.validated("reviews").write_bytes(b"earlier")
    write_table(layout.prepared_reviews, reviews(0, 1, 2), REVIEWS)
    with pytest.raises(ValidationStop) as stop:
        validate.run(params, layout, "reviews")
    places = ", ".join(f"row {number} ({text_id(f'Review {number}')[:12]}…)" for number in range(3))
    assert str(stop.value) == (
        "validation of reviews stopped:\n"
        "  3 of 8 rows (37.5%) are bad; validation.max_bad_fraction allows 25.0%: correct the source, or raise it\n"
        "  enough_rows: fewer than 6 reviews are left (found: 5)\n"
        "    → add reviews, clean less strictly, or lower validation.min_reviews\n"
        f"  stars_in_range: stars are outside 1 to 5 (3 rows: {places})\n"
        "    → rescale the ratings to 1 to 5, or set columns.stars of the set to null\n"
        f"See {layout.validation_page('reviews')} for the whole result and {layout.quarantine('reviews')} "
        "(column `reason`) for every bad row, then run `mixdpo validate reviews` again."
    )
    assert layout.validated("reviews").read_bytes() == b"earlier"
    assert pq.read_table(layout.quarantine("reviews")).num_rows == 3
    assert json.loads(layout.metrics("validation-reviews").read_text(encoding="utf-8"))["passed"] is False
    assert "✗ Stopped" in layout.validation_page("reviews").read_text(encoding="utf-8")


def test_two_runs_write_the_same_bytes(params: Params, layout: Layout) -> None:
    write_table(layout.prepared_reviews, reviews(2), REVIEWS)
    first, second = ([path.read_bytes() for path in validate.run(params, layout, "reviews")] for _ in range(2))
    assert first == second


def test_warnings_are_logged(params: Params, layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    schema = REVIEWS.append(REVIEWS.field("text").with_name("mood"))
    write_table(layout.prepared_reviews, [row | {"mood": "good"} for row in reviews()], schema)
    with caplog.at_level(logging.WARNING, logger="mixdpo"):
        validate.run(params, layout, "reviews")
    assert caplog.messages == [
        "reviews, columns_known: columns that no stage knows are left out of the validated table"
    ]
    assert read_table(layout.validated("reviews")).column_names == REVIEWS.names


def test_a_table_that_is_not_there_is_named(params: Params, layout: Layout) -> None:
    with pytest.raises(DataError) as error:
        validate.run(params, layout, "preferences")
    assert str(error.value) == (
        f"{layout.labelled_preferences} does not exist; run the stage that writes it first (`dvc repro` runs all)"
    )


def test_an_unknown_table_is_refused(params: Params, layout: Layout) -> None:
    with pytest.raises(ConfigError) as error:
        validate.run(params, layout, "review")
    assert str(error.value) == "there is no table 'review' to validate; choose one of reviews, scores, preferences"


def test_the_stage_imports_quickly() -> None:
    """Great Expectations takes seconds to import: a missing file or `--help` must not wait for it."""
    check = "import mixdpo.stages.validate, sys; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
