"""Promotion, aliases and going back from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mixdpo.cli import main
from mixdpo.files import write_json
from mixdpo.registry import Registry

Cli = Callable[..., Result]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Versions 1 and 2 of reviews, healthy, and 3, whose training found a dead expert; staging is the last."""
    made = Registry(tmp_path / "shared")
    for number, findings in enumerate(([], [], [{"name": "dead-expert", "message": "…"}]), start=1):
        run = tmp_path / f"run-{number}"
        write_json(run / "mixture.json", {"seed": number})
        write_json(run / "train.json", {"findings": findings})
        write_json(run / "validation.json", {"passed": True, "expectations": []})
        extra = {f"run/metrics/validation-{name}.json": run / "validation.json" for name in ("reviews", "scores")}
        extra |= {"run/metrics/validation-preferences.json": run / "validation.json"}
        extra |= {"run/metrics/train-moe.json": run / "train.json"}
        lineage = {"params": {"registry": {"policy": "moe"}, "seed": number}}
        made.register("reviews", run, lineage, "staging", f"seed {number}", extra)
    return made


@pytest.fixture
def mixdpo(project: Path, registry: Registry) -> Cli:
    assert registry.names() == ["reviews"]
    return lambda *arguments: CliRunner().invoke(main, ["--root", str(project), *arguments])


def test_a_first_promotion_shows_what_it_was_decided_on(mixdpo: Cli) -> None:
    asked = mixdpo("promote", "reviews@v1", "--check")
    assert asked.exit_code == 0, asked.output
    assert asked.stdout == (
        "reviews@v1, against nobody\nhealth of training: no findings\nvalidation of data: passed, no warnings\n"
        "the rules allow it: there was no champion to compare with\n"
    )
    done = mixdpo("promote", "reviews@v1", "--reason", "the first")
    assert done.stdout == f"{asked.stdout}reviews@production is now v1\n"
    again = mixdpo("promote", "reviews@v1", "production", "--reason", "again")
    assert again.stdout == "nothing to do: reviews@v1 has that alias already\n"


def test_what_the_rules_refuse_ends_with_a_code_of_its_own(mixdpo: Cli, registry: Registry) -> None:
    asked = mixdpo("promote", "reviews@staging", "--check")
    assert asked.exit_code == 3
    assert "the rules refuse it: the health check of its training found dead-expert" in asked.stdout
    refused = mixdpo("promote", "reviews@staging", "--reason", "new")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert refused.stderr.startswith("mixdpo: reviews@v3 does not become reviews@production\nreviews@v3, against nob")
    assert len(registry.history("reviews").entries) == 3
    forced = mixdpo("promote", "reviews@staging", "--reason", "I know", "--force")
    assert forced.exit_code == 0
    assert "the rules refuse it, a person moved the alias nevertheless: the health" in forced.stdout


def test_a_comparison_without_results_says_what_is_missing(mixdpo: Cli) -> None:
    mixdpo("promote", "reviews@v1", "--reason", "the first")
    refused = mixdpo("promote", "reviews@v2", "--reason", "better")
    assert refused.exit_code == 1
    assert "reviews@v2 was registered without its held-out results" in refused.stderr


def test_aliases_without_rules_move_at_once_and_go_back(mixdpo: Cli) -> None:
    assert mixdpo("alias", "reviews@v1", "staging", "--reason", "older").output == "reviews@staging is now v1\n"
    back = mixdpo("rollback", "reviews@staging", "--reason", "worse after all")
    assert back.output == "reviews@staging is back at v3: worse after all\n"
    refused = mixdpo("alias", "reviews@v1", "production", "--reason", "past the rules")
    assert refused.exit_code == 2
    assert "which rules guard; use `mixdpo promote reviews@v1 production`" in refused.stderr


def test_outside_a_project_the_log_guards_what_was_promoted(
    mixdpo: Cli, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixdpo("promote", "reviews@v1", "--reason", "the first")
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(
        main, ["alias", "reviews@v2", "production", "--reason", "x", "--registry", registry.store.location]
    )
    assert refused.exit_code == 1
    assert "reviews@production was promoted by rules, so nothing else moves it" in refused.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("--check", "--reason", "x"), ("--check", "--force"), ("--reason", "x", "--check", "--force")]
)
def test_asking_and_promoting_are_told_apart(mixdpo: Cli, arguments: tuple[str, ...]) -> None:
    result = mixdpo("promote", "reviews@v1", *arguments)
    assert result.exit_code == 2
    assert "give --reason to promote, or --check alone to ask only" in result.stderr


@pytest.mark.parametrize("arguments", [("rollback", "reviews"), ("rollback", "reviews@nowhere")])
def test_a_rollback_without_such_an_alias_is_refused(mixdpo: Cli, arguments: tuple[str, ...]) -> None:
    result = mixdpo(*arguments, "--reason", "why not")
    assert result.exit_code == 1
    assert result.stderr.startswith("mixdpo: ")
    assert "Traceback" not in result.output
