"""Every case of the scaling benchmark runs in small, and its lines have the keys that are read from them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("apart", "dpo_sides", "memory", "scaling", "scaling_rows", "scaling_step", "scaling_tables")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """The JSON lines of a command, whose cases run in this process."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import scaling

    for name in ("scaling_rows", "scaling_step"):
        monkeypatch.setattr(f"{name}.alone", lambda function, *arguments: function(*arguments))

    def run(*words: str) -> list[dict[str, Any]]:
        result = CliRunner().invoke(scaling.main, [*words, "--json"], catch_exceptions=False)
        return [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]

    return run


@pytest.mark.parametrize("case", ["validate-reviews", "preferences-labelled", "preferences-ready", "evaluate"])
def test_every_case_runs(run: Callable[..., list[dict[str, Any]]], case: str) -> None:
    (row,) = run("rows", "--cases", case, "--rows", "500")
    assert (row["benchmark"], row["case"], row["rows"], row["exponent"]) == ("scaling", case, 500, None)
    assert row["cpu_seconds"] > 0


def test_cost_against_rows(run: Callable[..., list[dict[str, Any]]]) -> None:
    small, large = run("rows", "--cases", "prepare", "--rows", "200,300")
    assert (small["rows"], large["rows"]) == (200, 300)
    assert isinstance(large["exponent"], float)
    assert large.keys() == {"benchmark", "case", "rows", "cpu_seconds", "peak_mb", "exponent"}


def test_cost_of_a_step_against_experts_and_tokens(run: Callable[..., list[dict[str, Any]]]) -> None:
    one, two = run("experts", "--experts", "1,2", "--size", "tiny", "--steps", "2")
    assert (one["case"], one["experts"], two["experts"]) == ("experts", 1, 2)
    assert one["tokens"] == two["tokens"] > 0
    short, long = run("tokens", "--pairs", "1,3", "--experts", "2", "--size", "tiny", "--steps", "2")
    assert (short["case"], short["pairs"], long["pairs"]) == ("tokens", 1, 3)
    assert short["tokens"] < long["tokens"]
    for row in (one, two, short, long):
        assert row["cpu_seconds"] > 0
        assert {"benchmark", "size", "head", "peak_mb", "exponent"} < row.keys()
