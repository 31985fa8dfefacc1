"""The registry from the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.registry import Registry
from mixdpo.registry.store import blob_key

Cli = Callable[..., Result]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two versions of reviews, the second with the alias staging."""
    made = Registry(tmp_path / "shared")
    for number in (1, 2):
        policy = tmp_path / f"policy-{number}"
        policy.mkdir()
        (policy / "mixture.json").write_text(f'{{"seed": {number}}}', encoding="utf-8")
        made.register("reviews", policy, {"schema": 1}, "staging", f"seed {number}")
    return made


@pytest.fixture
def mixdpo(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command for the project, from another directory."""
    monkeypatch.delenv("MIXDPO_REGISTRY", raising=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return lambda *arguments: CliRunner().invoke(main, ["--root", str(project), *arguments])


@pytest.mark.usefixtures("registry")
def test_a_relative_registry_is_beside_the_project_wherever_the_command_runs(mixdpo: Cli) -> None:
    result = mixdpo("list")
    assert result.exit_code == 0
    assert "reviews@v2" in result.output
    assert "seed 1" in mixdpo("list", "reviews").output


@pytest.mark.usefixtures("registry")
def test_what_is_pulled_is_a_directory_of_the_name(mixdpo: Cli) -> None:
    here = Path.cwd()
    assert mixdpo("pull", "reviews@v1").output == f"wrote {here / 'reviews'}\n"
    assert (here / "reviews" / "mixture.json").read_text(encoding="utf-8") == '{"seed": 1}'
    refused = mixdpo("pull", "reviews@staging")
    assert refused.exit_code == 1
    assert "choose a directory that does not exist, or remove this one" in refused.stderr


def test_verifying_reads_every_byte_again(mixdpo: Cli, registry: Registry, tmp_path: Path) -> None:
    whole = mixdpo("verify", "reviews")
    assert whole.exit_code == 0
    assert whole.output == "reviews is whole: 2 log entries, 2 versions, 2 files, 0.0 MiB\n"
    [content] = registry.resolve("reviews@v1").manifest.files.values()
    blob = tmp_path / "shared" / blob_key(content.sha256)
    blob.chmod(0o644)
    blob.write_text('{"seed": 9}', encoding="utf-8")
    damaged = mixdpo("verify", "reviews")
    assert damaged.exit_code == 1
    assert "is damaged:\n" in damaged.stderr
    assert "v1: mixture.json" in damaged.stderr


def test_an_option_names_another_registry(mixdpo: Cli, registry: Registry, tmp_path: Path) -> None:
    assert registry.names() == ["reviews"]
    shutil.copytree(tmp_path / "shared", tmp_path / "other")
    assert "reviews@v1" in mixdpo("list", "--registry", str(tmp_path / "other")).output
    empty = mixdpo("list", "--registry", str(tmp_path / "none"))
    assert empty.output == f"nothing is registered in {tmp_path / 'none'} yet; `mixdpo register` does that\n"
