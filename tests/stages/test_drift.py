from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mixdpo.cli import main
from mixdpo.config import Params, parse_params
from mixdpo.data.profile import Names, Profile, TableProfile
from mixdpo.errors import ConfigError, DataError, ValidationStop
from mixdpo.files import write_json
from mixdpo.layout import Layout
from mixdpo.registry import Registry
from mixdpo.stages.drift import Compared, compare_with_version

DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"
Register = Callable[..., None]


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Params:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values: dict[str, Any] = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    values["registry"]["url"] = "registry"
    values["drift"] = {"against": "staging", "warn": 0.1, "refuse": 0.25}
    return parse_params(values)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


def describe(layout: Layout, movies: int, books: int) -> Path:
    domains = Names(counts={"movie": movies, "book": books}, missing=0)
    profile = Profile(tables={"reviews": TableProfile(rows=movies + books, columns={"domain": domains})})
    write_json(layout.profile("reviews"), profile.model_dump(mode="json", by_alias=True))
    return layout.profile("reviews")


@pytest.fixture
def register(layout: Layout, tmp_path: Path) -> Register:
    def register(alias: str, *files: Path) -> None:
        write_json(layout.policy("moe") / "mixture.json", {"schema": 1})
        extra = {f"run/metrics/{file.name}": file for file in files}
        registry = Registry(tmp_path / "project" / "registry")
        registry.register("reviews", layout.policy("moe"), {"schema": 1}, alias, "for the test", extra)

    return register


def test_data_are_compared_with_those_of_the_version_in_use(params: Params, layout: Layout, register: Register) -> None:
    register("staging", describe(layout, 700, 300))
    assert str(compare_with_version(params, layout, "reviews")) == (
        "reviews: none of 1 columns moved (against reviews@v1 (staging))"
    )
    compared = compare_with_version(params, layout, "reviews", describe(layout, 200, 800))
    assert str(compared) == "reviews: reviews.domain moved (against reviews@v1 (staging))"
    with pytest.raises(ValidationStop) as caught:
        compared.refuse()
    assert "\n  reviews.domain: kl 0.534; book 30.0% → 80.0%, movie 70.0% → 20.0%\n" in str(caught.value)
    assert "raise drift.refuse or set it to null" in str(caught.value)
    assert params.drift is not None
    lenient = params.model_copy(update={"drift": params.drift.model_copy(update={"refuse": None})})
    warned = compare_with_version(lenient, layout, "reviews")
    warned.refuse()
    assert [shift.verdict for shift in warned.moved] == ["warn"]


@pytest.mark.parametrize(("source", "verdict"), [("annotated", "warn"), ("files", "refuse")])
def test_scores_and_labels_of_our_own_models_are_only_told(
    params: Params, layout: Layout, register: Register, source: str, verdict: str
) -> None:
    profile = describe(layout, 700, 300)
    profile.rename(layout.profile("preferences"))
    register("staging", layout.profile("preferences"))
    columns = {"prompt": "a", "chosen": "b", "rejected": "c", "metadata": [], "annotator": None, "style": None}
    files = {"kind": "files", "paths": ["x.csv"], "columns": {**columns, "domain": None, "split": None}, "limit": None}
    values = params.model_dump(mode="json", by_alias=True)
    if source == "files":
        values["preferences"]["source"] = files
        values["validation"]["min_pairs_per_annotator"] = 1
    [shift] = compare_with_version(parse_params(values), layout, "preferences", describe(layout, 200, 800)).shifts
    assert shift.verdict == verdict


def test_where_there_is_nothing_to_compare_with_it_says_so(params: Params, layout: Layout, register: Register) -> None:
    profile = describe(layout, 700, 300)

    def found() -> Compared:
        compared = compare_with_version(params, layout, "reviews")
        compared.refuse()
        return compared

    assert str(found()) == "reviews: not compared: there is no reviews@staging yet"
    register("next")
    assert str(found()) == "reviews: not compared: there is no reviews@staging yet"
    register("staging")
    assert found().why_not == "reviews@v1 has no run/metrics/profile-reviews.json, so it is older than profiles are"
    write_json(profile, {"schema": 2})
    with pytest.raises(DataError, match="is not a profile of data"):
        found()
    with pytest.raises(ConfigError, match=r"params\.yaml says nothing of drift"):
        compare_with_version(params.model_copy(update={"drift": None}), layout, "reviews")


def test_the_command_shows_the_table_and_ends_with_3_where_a_run_would_stop(
    params: Params, layout: Layout, register: Register
) -> None:
    register("staging", describe(layout, 700, 300))
    (layout.root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
    same = CliRunner().invoke(main, ["--root", str(layout.root), "drift"])
    assert (same.exit_code, same.output.splitlines()[0]) == (
        0,
        "reviews: none of 1 columns moved (against reviews@v1 (staging))",
    )
    describe(layout, 200, 800)
    moved = CliRunner().invoke(main, ["--root", str(layout.root), "drift", "reviews"])
    assert moved.exit_code == 3
    assert "reviews.domain  kl       0.534" in moved.output
