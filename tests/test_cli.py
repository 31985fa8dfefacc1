"""The command line as a whole: it starts at once, explains every verb, and tells errors without a traceback."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mixdpo.cli import main

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "numpy", "pandas", "pyarrow", "pydantic", "yaml", "great_expectations", "prefect")


def verbs(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*before, name)
        if isinstance(command, click.Group):
            yield from verbs(command, (*before, name))


@pytest.mark.parametrize("verb", list(verbs(main)), ids=" ".join)
def test_every_verb_is_explained_with_an_example_of_itself(verb: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*verb, "--help"])
    assert result.exit_code == 0
    text, _, example = result.output.partition("Example")
    assert f"mixdpo {' '.join(verb)}" in example
    about = text.split("\n\n")[1].strip()
    assert about[0].isupper()
    assert about.endswith(".") or "exit code" in about


@pytest.mark.parametrize("verb", list(verbs(main)), ids=" ".join)
def test_examples_are_commands_that_the_verb_takes(verb: tuple[str, ...]) -> None:
    command: click.Command = main
    for name in verb:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    lines = [line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("mixdpo ")]
    assert lines
    if isinstance(command, click.Group):
        return  # its examples are those of its verbs
    for line in lines:
        words = shlex.split(line)[1:]
        assert tuple(words[: len(verb)]) == verb
        command.make_context(verb[-1], words[len(verb) :])  # refuses what the verb does not take


def test_it_starts_at_once_and_imports_nothing_heavy() -> None:
    code = f"import sys, mixdpo.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    started = time.perf_counter()
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - started < 5  # a tenth of a second where the machine is idle


def test_wrong_use_ends_with_2_and_a_hint() -> None:
    result = CliRunner().invoke(main, ["validate", "review"])
    assert result.exit_code == 2
    assert "'review' is not one of 'reviews', 'scores', 'preferences'" in result.stderr


@pytest.mark.parametrize("verb", sorted(set(main.commands) - {"train"}))
def test_one_process_runs_a_verb_other_than_training(verb: str, tmp_path: Path) -> None:
    result = CliRunner(env={"WORLD_SIZE": "2"}).invoke(main, ["--root", str(tmp_path), verb])
    assert result.exit_code == 2
    assert f"2 processes were started, but one does `mixdpo {verb}`" in result.stderr
    assert "start one" in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_project_the_way_in_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--root", str(tmp_path), "prepare"])
    assert result.exit_code == 2
    assert result.stderr == (
        f"mixdpo: {tmp_path / 'params.yaml'} does not exist; run this in the project's directory, "
        "or `mixdpo profile use demo`\n"
    )


def test_an_error_of_the_disk_is_told_without_a_traceback(tmp_path: Path) -> None:
    shutil.copy(ROOT / "profiles" / "demo.yaml", tmp_path / "params.yaml")
    (tmp_path / "data").write_text("a file where a directory has to be")
    result = CliRunner().invoke(main, ["--root", str(tmp_path), "prepare"])
    assert result.exit_code == 1
    assert result.stderr.startswith("mixdpo: [Errno ")
    assert result.stderr.endswith("earlier outputs are untouched, mend it and run again\n")


def test_models_are_read_and_written_without_bars_of_others(tmp_path: Path) -> None:
    """transformers' own bars would be drawn over ours, on a terminal too."""
    code = """
import sys
from click.testing import CliRunner
from mixdpo.cli import main
sys.stderr.isatty = lambda: True
CliRunner().invoke(main, ["profile", "show"])
from transformers import GPT2Config, GPT2LMHeadModel
ends = {"bos_token_id": 0, "eos_token_id": 0}
config = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8, **ends)
GPT2LMHeadModel(config).save_pretrained(sys.argv[1])
GPT2LMHeadModel.from_pretrained(sys.argv[1])
"""
    done = subprocess.run((sys.executable, "-c", code, str(tmp_path)), capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_reader_that_has_gone_is_no_error() -> None:
    """As in `mixdpo study list | head -1`."""
    read, write = os.pipe()
    os.close(read)
    try:
        told = subprocess.run(
            [sys.executable, "-m", "mixdpo.cli", "profile", "show"],
            cwd=ROOT,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write)
    assert told.stderr == ""
    assert told.returncode == 1
