"""Stage `describe PART`: the profile of what a gate let through, which the data of later versions are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from mixdpo.config import Params
from mixdpo.data.profile import Profile, profile_preferences, profile_reviews, profile_scores
from mixdpo.data.schema import PREFERENCES, REVIEWS, open_table, scores_schema
from mixdpo.errors import ConfigError
from mixdpo.files import write_json
from mixdpo.layout import PROFILES, Layout


def run(params: Params, layout: Layout, part: str) -> list[Path]:
    """Write metrics/profile-PART.json: of `reviews`, or of `preferences` with the scores that they come from.

    Raises:
        ConfigError: there is no such part.
        DataError: a table is not there or cannot be read.
    """
    if part not in PROFILES:
        raise ConfigError(f"there is no part {part!r} to describe; choose one of {', '.join(PROFILES)}")
    if part == "reviews":
        with _batches(layout, "reviews", REVIEWS) as reviews:
            tables = {"reviews": profile_reviews(reviews)}
    else:
        dimensions = tuple(params.rewards.dimensions)
        schema = scores_schema(dimensions)
        with _batches(layout, "scores", schema) as scores:
            tables = {"scores": profile_scores(scores, dimensions)}
        with _batches(layout, "scores", schema) as scores, _batches(layout, "preferences", PREFERENCES) as pairs:
            tables["preferences"] = profile_preferences(pairs, scores, dimensions)
    write_json(layout.profile(part), Profile(tables=tables).model_dump(mode="json", by_alias=True))
    return [layout.profile(part)]


@contextmanager
def _batches(layout: Layout, table: str, schema: pa.Schema) -> Iterator[Iterator[pa.RecordBatch]]:
    with open_table(layout.validated(table), schema) as file:
        yield file.iter_batches(columns=schema.names)
