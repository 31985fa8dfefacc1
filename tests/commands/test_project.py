"""Choosing a profile never loses what someone wrote by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mixdpo.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    return tmp_path


def profile(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--root", str(root), "profile", *arguments])


def test_a_profile_becomes_the_parameters(root: Path) -> None:
    assert profile(root, "use", "imdb").exit_code == 0
    assert (root / "params.yaml").read_bytes() == (root / "profiles" / "imdb.yaml").read_bytes()
    assert profile(root, "use", "demo").exit_code == 0
    assert (root / "params.yaml").read_bytes() == (root / "profiles" / "demo.yaml").read_bytes()


def test_edits_are_kept_unless_forced(root: Path) -> None:
    profile(root, "use", "demo")
    edited = (root / "params.yaml").read_text(encoding="utf-8").replace("seed: 0", "seed: 5", 1)
    (root / "params.yaml").write_text(edited, encoding="utf-8")
    refused = profile(root, "use", "imdb")
    assert refused.exit_code == 2
    assert "differs from every profile, so it holds edits of yours; keep them with" in refused.stderr
    assert (root / "params.yaml").read_text(encoding="utf-8") == edited
    assert profile(root, "use", "imdb", "--force").exit_code == 0
    assert "profile: imdb" in (root / "params.yaml").read_text(encoding="utf-8")


def test_a_profile_that_does_not_fit_is_not_taken(root: Path) -> None:
    profile(root, "use", "demo")
    before = (root / "params.yaml").read_bytes()
    (root / "profiles" / "mine.yaml").write_text("profile: mine\n", encoding="utf-8")
    assert profile(root, "use", "mine").exit_code == 2
    assert (root / "params.yaml").read_bytes() == before


def test_the_list_says_which_is_in_use_and_whether_it_was_edited(root: Path) -> None:
    def marks() -> dict[str, str]:
        return {line.split()[0]: line[13:28].strip() for line in profile(root, "show").output.splitlines()}

    assert set(marks().values()) == {""}
    profile(root, "use", "demo")
    assert marks()["demo"] == "in use"
    with (root / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("# a remark\n")
    assert marks()["demo"] == "in use, edited"
    assert marks()["imdb"] == ""
