"""Versions told from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.files import write_json
from mixdpo.registry import Registry
from mixdpo.registry.keys import key_id, new_key, public_text
from mixdpo.registry.variables import TRUSTED

Cli = Callable[..., Result]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two versions of reviews that differ in a parameter, a figure, a package and the weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXDPO_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(TRUSTED, raising=False)
    made = Registry(tmp_path / "registry")
    for number in (1, 2):
        run = tmp_path / f"run-{number}"
        write_json(run / "policy" / "mixture.json", {"seed": number})
        write_json(run / "packages.json", {"components": [{"name": "torch", "version": f"2.{number}"}]})
        write_json(run / "standing.json", {"terms": {"prompts": "p", "judges": {}}})
        extra = {"run/packages.cdx.json": run / "packages.json", "run/standing.json": run / "standing.json"}
        lineage: dict[str, Any] = {
            "profile": "demo",
            "params": {"registry": {"policy": "moe"}, "training": {"beta": number / 10}},
            "data": {"reviews": "d" * 64},
            "git": {"commit": "c" * 40, "dirty": False},
            "metrics": {"policies": {"moe": {"preference": {"accuracy": {"mean": 0.5 + number / 10}}}}},
        }
        made.register("reviews", run / "policy", lineage, "staging", f"number {number}", extra)
    return made


@pytest.fixture
def mixdpo(registry: Registry) -> Cli:
    assert registry.names() == ["reviews"]
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def test_one_version_is_told_in_full(mixdpo: Cli, registry: Registry) -> None:
    version = registry.resolve("reviews@v2")
    told = mixdpo("show", "reviews@staging").output.splitlines()
    assert told[0] == "reviews@v2"
    assert f"sha256      {version.digest}" in told
    assert "aliases     staging" in told
    assert "reason      number 2" in told
    assert "signed by   nobody" in told
    assert "made from   profile demo, commit cccccccccccc" in told
    assert "packages    1" in told
    assert "held-out accuracy  0.7" in told
    record = json.loads(mixdpo("show", "reviews@v2", "--json").output)
    assert record["figures"] == {"held-out accuracy": 0.7}
    assert record["files"].keys() == version.manifest.files.keys()
    assert record["packages"] == 1


def test_who_signed_is_told_and_whether_that_was_verified(
    mixdpo: Cli, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = (new_key(tmp_path / name) for name in ("ann.pem", "bob.pem"))
    for key in (ann, bob):
        registry.sign("reviews@v2", key)
    monkeypatch.setenv(TRUSTED, public_text(ann.public_key()))
    assert json.loads(mixdpo("show", "reviews", "--json").output)["signed"] == {
        public_text(ann.public_key()): "trusted",
        key_id(bob.public_key()): "not verified",
    }


def test_two_versions_are_told_apart(mixdpo: Cli) -> None:
    assert mixdpo("diff", "reviews@v1", "reviews@v2").output.splitlines() == [
        "reviews@v1 → reviews@v2",
        "",
        "figures",
        "figure             reviews@v1  reviews@v2",
        "held-out accuracy  0.6         0.7         better",
        "",
        "params",
        "               reviews@v1  reviews@v2",
        "training.beta  0.1         0.2",
        "",
        "packages",
        "       reviews@v1  reviews@v2",
        "torch  2.1         2.2",
        "",
        "files",
        *mixdpo("diff", "reviews@v1", "reviews@v2").output.splitlines()[15:],
    ]
    found = json.loads(mixdpo("diff", "reviews@v1", "reviews@v2", "--json").output)
    assert found["params"] == {"training.beta": [0.1, 0.2]}
    assert found["figures"]["held-out accuracy"] == {"before": 0.6, "after": 0.7, "better": True}
    assert found["files"].keys() == {"mixture.json", "run/packages.cdx.json"}
    assert found["same_terms"] is True
    assert mixdpo("diff", "reviews@v2", "reviews").output == "reviews@v2 → reviews@v2: nothing differs\n"


def test_where_it_came_from_is_a_tree(mixdpo: Cli) -> None:
    told = mixdpo("lineage", "reviews").output.splitlines()
    assert told[0].startswith("reviews@v2  sha256:")
    assert told[-1] == "└─ code: commit cccccccccccc"
    assert json.loads(mixdpo("lineage", "reviews", "--json").output)["made_of"][-1]["what"].startswith("code")


def test_the_log_tells_all_or_one_entry(mixdpo: Cli) -> None:
    lines = mixdpo("log", "reviews").output.splitlines()
    assert [line.split()[2] for line in lines] == ["what", "register", "register"]
    assert lines[1].endswith("number 1")
    assert mixdpo("log", "reviews", "2").output.splitlines()[1:] == [lines[2]]
    assert [each["seq"] for each in json.loads(mixdpo("log", "reviews", "--json").output)] == [1, 2]
    beyond = mixdpo("log", "reviews", "3")
    assert beyond.exit_code == 1
    assert "the log of reviews ends at entry 2" in beyond.stderr


def test_versions_of_one_name_are_listed(mixdpo: Cli, registry: Registry, tmp_path: Path) -> None:
    registry.register("books", tmp_path / "run-1" / "policy", {}, None, "another")
    assert [line.split()[0] for line in mixdpo("list", "reviews").output.splitlines()] == [
        "version",
        "reviews@v1",
        "reviews@v2",
    ]
    assert "books@v1" in mixdpo("list").output
    assert mixdpo("list", "films").exit_code == 1


@pytest.mark.parametrize("command", [("show", "films"), ("diff", "reviews", "films"), ("lineage", "reviews@v9")])
def test_what_is_not_there_is_named(mixdpo: Cli, command: tuple[str, ...]) -> None:
    result = mixdpo(*command)
    assert result.exit_code == 1
    assert result.stderr.startswith("mixdpo: ")
