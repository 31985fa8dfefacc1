from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixdpo.registry import Registry, Version
from mixdpo.registry.ancestry import Node, ancestry, tree

Make = Callable[..., Version]


@pytest.fixture
def register(registry: Registry, tmp_path: Path, new_policy: Callable[..., Path]) -> Make:
    """register(name, *start): a version whose training went on from these."""

    def register(name: str, *start: tuple[str, str], reason: str = "for the test", **lineage: Any) -> Version:
        number = len(list(tmp_path.glob("policy-*")))
        directory = new_policy(tmp_path / f"policy-{number}", number)
        told = {
            "params": {
                "registry": {"policy": "moe"},
                "policies": {"moe": {"experts": 2, "weights": {"kind": "gate"}, "latent": "annotator"}},
                "sft": {"base": {"kind": "pretrained", "model": "gpt2", "revision": "abc"}},
            },
            "git": {"commit": "c" * 40, "dirty": True},
            "data": {"reviews": "d" * 64},
            "start": [{"from": text, "sha256": digest} for text, digest in start],
        }
        return registry.register(name, directory, {**told, **lineage}, None, reason)

    return register


def test_a_version_that_started_from_nothing(registry: Registry, register: Make) -> None:
    version = register("reviews", reason="weekly\nretraining")
    assert tree(ancestry(version, registry.resolve)).splitlines() == [
        f"reviews@v1  sha256:{version.digest[:12]}  {version.entry.at[:10]}  weekly retraining",
        "├─ policy moe: 2 experts, weights gate, latent annotator",
        "├─ sft: from gpt2 at abc",
        "├─ data",
        f"│  └─ reviews  sha256:{'d' * 12}",
        f"└─ code: commit {'c' * 12}, with changes that were not committed",
    ]


def test_the_walk_goes_back_through_all_that_it_started_from(registry: Registry, register: Make) -> None:
    first, books = register("reviews"), register("books")
    second = register("reviews", ("reviews@v1", first.digest))
    third = register(
        "reviews",
        ("reviews@v2/expert-1", second.digest),
        ("books@v1", books.digest),
        ("mixtures/mine", "e" * 64),
        ("films@v7", "f" * 64),
    )
    found = ancestry(third, registry.resolve)
    starts = found.parts[0].parts
    assert [each.what for each in starts] == [
        "started from reviews@v2/expert-1 (expert 1)",
        "started from books@v1",
        f"started from mixtures/mine  sha256:{'e' * 12}",
        f"started from films@v7  sha256:{'f' * 12}, which is not in this registry",
    ]
    lines = tree(found).splitlines()
    assert [line.lstrip("│├└─ ").split("  ")[0] for line in lines if "sha256" in line and "@v" in line][:5] == [
        "reviews@v3",
        "reviews@v2",
        "reviews@v1",
        "books@v1",
        "started from films@v7",
    ]


def test_it_is_the_version_of_that_digest_whatever_its_number_here(registry: Registry, register: Make) -> None:
    """v1 elsewhere was what is v2 here."""
    register("reviews")
    meant = register("reviews")
    found = ancestry(register("films", ("reviews@v1", meant.digest)), registry.resolve)
    assert found.parts[0].parts[0].parts[0].what.startswith(f"reviews@v2  sha256:{meant.digest[:12]}")


def test_what_says_that_it_came_from_itself_is_not_walked_for_ever(register: Make) -> None:
    version = register("reviews")
    manifest = version.manifest.model_copy(
        update={"lineage": {**version.manifest.lineage, "start": [{"from": "reviews@v1", "sha256": version.digest}]}}
    )
    lying = Version(version.name, 1, version.digest, manifest, (), version.entry)
    assert len(tree(ancestry(lying, lambda _: lying)).splitlines()) == 7


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    st.sampled_from(["start", "data", "rewards", "params", "git", "dvc_lock"]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
)
def test_any_lineage_is_walked(registry: Registry, register: Make, key: str, value: Any) -> None:
    version = register("reviews") if "reviews" not in registry.names() else registry.resolve("reviews")
    manifest = version.manifest.model_copy(update={"lineage": {**version.manifest.lineage, key: value}})
    found = ancestry(Version("reviews", 1, version.digest, manifest, (), version.entry), registry.resolve)
    json.dumps(found.record())
    assert tree(found).startswith("reviews@v1")


def test_no_letter_of_others_moves_the_cursor() -> None:
    assert tree(Node("a\x1b[2J\nb")) == "a [2J b"
