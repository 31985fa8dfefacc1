from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.registry.diff import Change, Difference, Moved, difference, flat, lineage_packages
from mixdpo.registry.figures import key_figures
from mixdpo.registry.manifest import Manifest
from mixdpo.registry.show import difference_text

LINEAGE: dict[str, Any] = {
    "schema": 1,
    "params": {"registry": {"policy": "moe"}, "training": {"beta": 0.3}, "policies": {"moe": {"experts": 3}}},
    "git": {"commit": "a" * 40, "dirty": False},
    "data": {"reviews": "1" * 64},
    "rewards": {"grammar/judge": {"sha256": "2" * 64, "card": None}},
    "packages": {"torch": "2.13.0"},
    "metrics": {
        "policies": {
            "moe": {
                "preference": {"log_likelihood": {"mean": -0.5}, "calibration_error": 0.03},
                "rewards": {"judge": {"grammar": {"mean": 0.7}}},
                "cost": {"kl": {"mean": 2.0}},
            },
            "dpo": {"preference": {"log_likelihood": {"mean": -9.0}}},
        },
        "styles": {"grammar": {"moe": {"few_shot": {"2": {"reward": {"mean": 0.1}}, "16": {"reward": {"mean": 0.4}}}}}},
    },
}


def manifest(lineage: Any = LINEAGE, **files: str) -> Manifest:
    contents = {path: {"sha256": digest * 64, "size": 1} for path, digest in (files or {"weights": "0"}).items()}
    return Manifest.model_validate(
        {"schema": 1, "name": "reviews", "kind": "mixture", "files": contents, "lineage": lineage}
    )


def changed(*path: str, to: Any) -> dict[str, Any]:
    lineage: dict[str, Any] = copy.deepcopy(LINEAGE)
    place = lineage
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return lineage


def compare(one: Manifest, two: Manifest, terms: tuple[str | None, str | None] = ("t", "t")) -> Difference:
    return difference(one, two, (lineage_packages(one), lineage_packages(two)), terms)


def test_figures_are_of_the_versions_own_policy() -> None:
    figures = {name: each.value for name, each in key_figures(manifest()).items()}
    assert figures == {
        "held-out log-likelihood (nats)": -0.5,
        "calibration error": 0.03,
        "judge grammar": 0.7,
        "grammar, 16 known": 0.4,
        "KL to SFT (nats)": 2.0,
    }


def test_the_same_differs_in_nothing() -> None:
    found = compare(manifest(), manifest())
    assert found == Difference({}, {}, {}, {}, {}, {}, True)
    assert difference_text(found, "a", "b") == "a → b: nothing differs"


def test_every_kind_of_change_is_in_its_place() -> None:
    lineage = changed("params", "training", to={"beta": 0.1, "clip": 1.0})
    lineage["git"] = {"commit": "b" * 40, "dirty": True}
    lineage["data"] = {"reviews": "3" * 64, "scores": "4" * 64}
    lineage["packages"] = {"torch": "2.14.0"}
    found = compare(manifest(a="0", b="1"), manifest(lineage, b="2", c="3"), ("s", "t"))
    assert found.params == {"training.beta": Change(0.3, 0.1), "training.clip": Change(None, 1.0)}
    assert found.code == {"git.commit": Change("a" * 40, "b" * 40), "git.dirty": Change(False, True)}
    assert found.inputs == {"data.reviews": Change("1" * 64, "3" * 64), "data.scores": Change(None, "4" * 64)}
    assert found.packages == {"torch": Change("2.13.0", "2.14.0")}
    assert found.files == {
        "a": Change("0" * 64, None),
        "b": Change("1" * 64, "2" * 64),
        "c": Change(None, "3" * 64),
    }
    assert (found.figures, found.same_terms) == ({}, False)
    assert json.loads(json.dumps(found.record()))["params"]["training.beta"] == [0.3, 0.1]


@pytest.mark.parametrize(
    ("path", "to", "name", "better"),
    [
        (("preference", "log_likelihood", "mean"), -0.4, "held-out log-likelihood (nats)", True),
        (("preference", "log_likelihood", "mean"), -0.6, "held-out log-likelihood (nats)", False),
        (("preference", "calibration_error"), 0.01, "calibration error", True),
        (("cost", "kl", "mean"), 3.0, "KL to SFT (nats)", False),
    ],
)
def test_a_figure_says_which_way_is_better(path: tuple[str, ...], to: float, name: str, better: bool) -> None:
    found = compare(manifest(), manifest(changed("metrics", "policies", "moe", *path, to=to)))
    [(moved, figure)] = found.figures.items()
    assert (moved, figure.after, figure.better) == (name, to, better)


def test_a_figure_that_one_lacks_is_neither() -> None:
    found = compare(manifest(), manifest(changed("metrics", "policies", "moe", "cost", to=None)))
    assert found.figures == {"KL to SFT (nats)": Moved(2.0, None, None)}


def test_tables_say_whether_figures_can_be_compared() -> None:
    worse = manifest(changed("metrics", "policies", "moe", "cost", "kl", "mean", to=3.0))
    notes = {("s", "t"): "on other prompts or judges: not comparable", (None, "t"): "on unknown prompts and judges"}
    for terms, note in notes.items():
        assert difference_text(compare(manifest(), worse, terms), "v1", "v2").splitlines()[2:] == [
            f"figures, {note}",
            "figure            v1  v2",
            "KL to SFT (nats)  2   3   worse",
        ]


def test_flat_keeps_what_is_no_mapping() -> None:
    assert flat({"a": {"b": None, "c": [{"d": 1}]}, "e": {}}) == {"a.b": None, "a.c": [{"d": 1}]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
PATHS = [
    ("params",),
    ("params", "registry"),
    ("metrics",),
    ("metrics", "policies"),
    ("metrics", "policies", "moe", "rewards", "judge"),
    ("metrics", "styles"),
    ("metrics", "styles", "grammar", "moe", "few_shot"),
    ("data",),
    ("packages",),
    ("git",),
]


@given(st.sampled_from(PATHS), json_values)
def test_any_lineage_can_be_told(path: tuple[str, ...], value: Any) -> None:
    """It comes from others: what is not there is left out."""
    strange = manifest(changed(*path, to=value))
    found = compare(manifest(), strange)
    json.dumps(found.record())
    assert difference_text(found, "v1", "v2").startswith("v1 → v2")
