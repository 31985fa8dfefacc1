"""What counts as the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mixdpo.files import file_digest, read_json, write_json
from mixdpo.layout import Layout
from mixdpo.registry.manifest import Manifest, describe_files
from mixdpo.reproduction.comparison import compare, furthest


@pytest.fixture
def made(tmp_path: Path) -> Layout:
    """What a run of policy moe leaves."""
    layout = Layout(tmp_path / "clone")
    write_json(layout.policy("moe") / "mixture.json", {"experts": 3})
    write_json(layout.metrics("evaluation"), {"accuracy": 0.7, "each": [0.1, 0.2]})
    write_json(layout.standing("moe").with_suffix(".json"), {"terms": {}})
    layout.validated("reviews").parent.mkdir(parents=True)
    layout.validated("reviews").write_bytes(b"rows")
    return layout


@pytest.fixture
def manifest(made: Layout) -> Manifest:
    """The version of it."""
    files = {
        "mixture.json": made.policy("moe") / "mixture.json",
        "run/metrics/evaluation.json": made.metrics("evaluation"),
        "run/standing.json": made.standing("moe").with_suffix(".json"),
    }
    lineage = {
        "data": {"reviews": file_digest(made.validated("reviews"))},
        "metrics": read_json(made.metrics("evaluation")),
    }
    return describe_files("reviews", files, lineage)


def test_what_it_was_made_from_is_identical_to_it(manifest: Manifest, made: Layout) -> None:
    found = compare(manifest, made, "moe")
    assert found.identical
    assert found.apart is None
    assert found.reproduced(0.0)
    assert found.record()["results"] == {"run/metrics/evaluation.json": True, "run/standing.json": True}


def test_figures_may_be_off_by_the_tolerance_and_no_more(manifest: Manifest, made: Layout) -> None:
    write_json(made.metrics("evaluation"), {"accuracy": 0.7, "each": [0.1, 0.25]})
    found = compare(manifest, made, "moe")
    assert found.apart is not None
    assert found.apart.figure == "each.1"
    assert not found.identical
    assert found.reproduced(0.06)
    assert not found.reproduced(0.04)


def test_other_data_is_not_reproduced_whatever_the_figures(manifest: Manifest, made: Layout) -> None:
    made.validated("reviews").write_bytes(b"other rows")
    found = compare(manifest, made, "moe")
    assert found.data == {"reviews": False}
    assert not found.reproduced(math.inf)


def test_other_weights_with_the_same_figures_are_reproduced_but_not_identical(manifest: Manifest, made: Layout) -> None:
    write_json(made.policy("moe") / "mixture.json", {"experts": 3, "written": "elsewhere"})
    found = compare(manifest, made, "moe")
    assert found.policy == {"mixture.json": False}
    assert (found.identical, found.reproduced(0.0)) == (False, True)


def test_what_is_absent_is_not_the_same(manifest: Manifest, tmp_path: Path) -> None:
    found = compare(manifest, Layout(tmp_path / "nothing"), "moe")
    assert not any((*found.data.values(), *found.policy.values(), *found.results.values()))
    assert not found.reproduced(1e9)


@pytest.mark.parametrize(
    ("registered", "now", "distance"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}, None),
        ({"a": 1.0, "b": 5}, {"a": 1.5, "b": 5.25}, 0.5),
        ({"a": 1.0}, {}, math.inf),
        ({"a": 1.0}, {"a": None}, math.inf),
        ({"a": "x"}, {"a": "y"}, math.inf),
        ({"a": True}, {"a": False}, math.inf),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, math.inf),
        (None, {"a": 1}, math.inf),
    ],
)
def test_the_furthest_figure_is_found(registered: Any, now: Any, distance: float | None) -> None:
    found = furthest(registered, now)
    assert (found and found.distance) == distance
