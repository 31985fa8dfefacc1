from __future__ import annotations

from typing import Any

from mixdpo.evaluation.markdown import interval, line, markdown_table, table


def test_the_summary_has_a_row_a_policy_and_a_column_a_dimension(evaluated: dict[str, Any]) -> None:
    lines = markdown_table(evaluated["metrics"]).splitlines()
    assert lines[0] == "| policy | log-likelihood (nats) | accuracy | NMI | sentiment | grammar | informativeness |"
    assert [row.split("|")[1].strip() for row in lines[2:]] == ["sft", "dpo", "mix"]
    assert {row.count("|") for row in lines} == {8}
    assert "| 1.00 |" in lines[4]
    assert lines[2].startswith("| sft | – | – | – | 0.2")


def test_unknown_styles_are_a_dash(evaluated: dict[str, Any]) -> None:
    assert markdown_table(evaluated["unknown"]).splitlines()[4].split("|")[4].strip() == "–"


def test_intervals_wear_a_true_minus() -> None:
    assert interval({"mean": -0.5, "low": -1.0, "high": 0.25}, 2) == "−0.50 [−1.00, 0.25]"
    assert interval({"mean": 0.5, "low": -1.0, "high": 1.0}, 1, sign=True) == "+0.5 [−1.0, +1.0]"
    assert interval(None) == "–"


def test_no_text_breaks_the_table_or_becomes_markup() -> None:
    assert table(["a|b", "c"], [["x\ny", "<b>"]]).splitlines() == [
        "| a\\|b | c |",
        "| --- | ---: |",
        "| x y | \\<b\\> |",
    ]
    assert line("[click](javascript:x) `code` *bold*") == "[click]\\(javascript:x) \\`code\\` \\*bold\\*"
