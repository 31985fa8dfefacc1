"""Talking to a policy: whose comparisons are refused, and where a policy is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mixdpo.cli import main
from mixdpo.commands.policies import read_comparisons
from mixdpo.errors import DataError


def test_comparisons_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    row = {"prompt": "This film", "chosen": " is good.", "rejected": " is bad."}
    path.write_text('{"prompt": "This film", "chosen": " is good.", "rejected": " is bad."}\n\n', encoding="utf-8")
    assert read_comparisons(path) == [row]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no comparison; give at least one line with prompt, chosen and rejected"),
        ("{", r"line 1 is not JSON \(.*\); correct or remove it"),
        ("\n[1]", r"line 2 needs text in prompt, chosen and rejected; got \[1\]"),
        ('{"prompt": "a", "chosen": 1, "rejected": "b"}', "line 1 needs text in prompt, chosen and rejected"),
    ],
)
def test_other_lines_are_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_comparisons(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine.jsonl does not exist; give a file of JSON lines"):
        read_comparisons(tmp_path / "mine.jsonl")


def test_a_policy_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    result = CliRunner().invoke(main, ["generate", "films@staging", "This film", "--registry", str(registry)])
    assert result.exit_code == 1
    message = " ".join(result.stderr.split())
    assert message.startswith(
        f"mixdpo: no policy 'films@staging': there is no directory {Path.cwd()}/films@staging, and"
    )
    assert str(registry) in message
