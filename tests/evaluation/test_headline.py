from __future__ import annotations

import copy
from typing import Any

import pytest

from mixdpo.evaluation.headline import headline, verdict


def test_verdict_needs_the_interval_on_one_side() -> None:
    assert verdict({"mean": 0.1, "low": 0.01, "high": 0.2}) == "better"
    assert verdict({"mean": -0.1, "low": -0.2, "high": -0.01}) == "worse"
    assert verdict({"mean": 0.1, "low": -0.01, "high": 0.2}) == "no different"


def test_good_news_names_everyone_served_better_and_the_worst_served(evaluated: dict[str, Any]) -> None:
    metrics = evaluated["metrics"]
    lead, points = headline(metrics)
    assert lead.startswith(
        "Once it knows 4 comparisons of a person, mix serves every style better than one dpo policy for all: +"
    )
    gains = {style: ways["mix"]["few_shot"]["4"]["reward"]["mean"] for style, ways in metrics["styles"].items()}
    assert points[0].startswith(f"Worst served by mix: {min(gains, key=lambda style: gains[style])}, ")
    assert "Held-out preferences are likelier under mix than under dpo" in points[1]
    assert "found the annotators' styles (NMI 1.00" in points[2]


def turned(metrics: dict[str, Any]) -> dict[str, Any]:
    """The same run with every difference to dpo the other way round."""
    bad = copy.deepcopy(metrics)
    for served in bad["styles"].values():
        for entry in served["mix"]["few_shot"].values():
            gap = entry["minus_dpo"]
            entry["minus_dpo"] = {"mean": -gap["mean"], "low": -gap["high"], "high": -gap["low"]}
    gap = bad["policies"]["mix"]["preference"]["minus_dpo"]["log_likelihood"]
    bad["policies"]["mix"]["preference"]["minus_dpo"]["log_likelihood"] = {
        "mean": -gap["mean"],
        "low": -gap["high"],
        "high": -gap["low"],
    }
    return bad


def test_bad_news_is_said_as_plainly(evaluated: dict[str, Any]) -> None:
    lead, points = headline(turned(evaluated["metrics"]))
    assert "mix serves every style worse than one dpo policy for all: −" in lead
    assert "better" not in lead
    assert "which is worse" in points[0]
    assert "less likely under mix than under dpo" in points[1]


def test_no_clear_difference_is_neither(evaluated: dict[str, Any]) -> None:
    metrics = copy.deepcopy(evaluated["metrics"])
    for served in metrics["styles"].values():
        for entry in served["mix"]["few_shot"].values():
            entry["minus_dpo"] |= {"low": -1.0, "high": 1.0}
    lead, _ = headline(metrics)
    assert "mix serves nobody clearly better or worse than one dpo policy for all" in lead
    one = metrics["styles"]["grammar"]["mix"]["few_shot"]["4"]["minus_dpo"]
    one |= {"low": 0.1}
    metrics["styles"]["sentiment"]["mix"]["few_shot"]["4"]["minus_dpo"] |= {"low": -1.0, "high": -0.1}
    assert (
        "mix serves grammar better, sentiment worse, informativeness about the same, compared with one dpo"
        in headline(metrics).lead
    )


def test_without_styles_the_lead_is_about_preferences(evaluated: dict[str, Any]) -> None:
    lead, points = headline(evaluated["unknown"])
    assert lead.startswith("mix predicts what held-out annotators prefer better than one dpo policy for all: +")
    assert not any("Worst served" in point for point in points)


@pytest.mark.parametrize(
    ("left", "expected"),
    [(["sft", "dpo"], "This run trained no mixture"), (["sft", "mix"], "This run trained no policy named dpo")],
)
def test_a_run_without_mixture_or_baseline_says_so(evaluated: dict[str, Any], left: list[str], expected: str) -> None:
    metrics = copy.deepcopy(evaluated["metrics"])
    metrics["policies"] = {name: metrics["policies"][name] for name in left}
    if "dpo" not in left:
        del metrics["policies"]["mix"]["preference"]["minus_dpo"]
    assert headline(metrics).lead.startswith(expected)
