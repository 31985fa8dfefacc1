from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mixdpo.config import Params, parse_params
from mixdpo.errors import DataError
from mixdpo.evaluation.standing import Standing
from mixdpo.promotion import compare, gather_evidence
from mixdpo.promotion.evidence import tastes

STYLES = ("grammar", "informativeness", "sentiment")
MakeStanding = Callable[..., Standing]


def healthy(**changes: Any) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        f"validation-{table}": {"passed": True, "expectations": []} for table in ("reviews", "scores", "preferences")
    }
    return {**metrics, "train-moe": {"findings": []}, **changes}


def test_what_both_find_hard_cancels_prompt_by_prompt(standing: MakeStanding, params: Params) -> None:
    hard = np.random.default_rng(0).normal(size=200) * 5
    champion = standing(dict.fromkeys(STYLES, hard))
    challenger = standing({"grammar": hard + 0.1, "informativeness": hard, "sentiment": hard - 0.2})
    found = {name: each.difference for name, each in compare(challenger, champion, params).items()}
    for name, expected in (("grammar", 0.1), ("informativeness", 0.0), ("sentiment", -0.2)):
        assert (found[name].low, found[name].mean, found[name].high) == pytest.approx([expected] * 3, abs=1e-9)
        assert found[name].clusters == 200


def test_people_of_a_style_get_their_expert_once_something_is_known(standing: MakeStanding, params: Params) -> None:
    """Expert k writes what style k likes; a mixture of three is then 1 better for each, and 1/3 for a stranger."""
    zero = np.zeros(40)
    champion = standing(dict.fromkeys(STYLES, zero))
    mixture = standing({name: np.tile(np.eye(3)[k], (40, 1)) for k, name in enumerate(STYLES)})
    known = compare(mixture, champion, params)
    assert [each.difference.mean for each in known.values()] == pytest.approx([1.0] * 3, abs=1e-6)
    rules = params.promotion.model_copy(update={"comparisons": 0})
    stranger = compare(mixture, champion, params.model_copy(update={"promotion": rules}))
    assert [each.difference.mean for each in stranger.values()] == pytest.approx([1 / 3] * 3)


def test_standings_on_other_terms_are_never_compared(standing: MakeStanding, params: Params) -> None:
    scores = dict.fromkeys(STYLES, np.zeros(8))
    one = standing(scores)
    other = standing(scores, terms=one.terms.model_copy(update={"judges": dict.fromkeys(STYLES, "another")}))
    for pair in ((one, other), (one, standing(dict.fromkeys(STYLES, np.zeros(9))))):
        with pytest.raises(ValueError, match="on different terms cannot be compared"):
            compare(*pair, params)


def test_where_styles_are_unknown_each_judge_is_a_taste(params: Params) -> None:
    assert tastes(params)["grammar"] == ({"grammar": 1.0}, "grammar")
    values = params.model_dump(mode="json", by_alias=True)
    columns = {name: name for name in ("prompt", "chosen", "rejected", "annotator")}
    columns |= {"style": None, "domain": None, "split": None, "metadata": []}
    values["preferences"]["source"] = {"kind": "files", "paths": ["p.csv"], "columns": columns, "limit": None}
    ready = parse_params(values)
    assert tastes(ready) == {name: ({name: 1.0}, None) for name in ready.rewards.dimensions}


def test_the_evidence_tells_all_and_the_same_each_time(standing: MakeStanding, params: Params) -> None:
    generator = np.random.default_rng(0)
    own, other = (standing({name: generator.normal(size=30) for name in STYLES}) for _ in range(2))
    warning = {"name": "words", "severity": "warning", "success": False}
    quiet = {"name": "rows", "severity": "critical", "success": False}
    metrics = healthy(
        **{"train-moe": {"findings": [{"name": "dead-expert", "message": "expert 2 is not in use"}]}},
        **{"validation-scores": {"passed": False, "expectations": [warning, quiet]}},
    )
    evidence = gather_evidence(("a" * 64, own), ("b" * 64, other), metrics, "moe", params)
    assert evidence.findings == {"dead-expert": "expert 2 is not in use"}
    assert evidence.failed == ("scores: the gate did not let it through",)
    assert evidence.warned == ("scores: words",)
    told = json.loads(evidence.to_bytes())
    assert told["terms"] == own.terms.model_dump()
    rows = told["styles"]["grammar"]["rows"]
    assert np.mean(rows) == pytest.approx(told["styles"]["grammar"]["difference"]["mean"])
    assert len(rows) == len(told["prompts"]) == 30
    again = gather_evidence(("a" * 64, own), ("b" * 64, other), metrics, "moe", params)
    assert again.to_bytes() == evidence.to_bytes()


def test_without_a_champion_nothing_is_compared(params: Params) -> None:
    evidence = gather_evidence(("a" * 64, None), None, healthy(), "moe", params)
    assert (evidence.champion, evidence.styles, evidence.terms) == (None, {}, None)


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        healthy(**{"train-moe": {}}),
        healthy(**{"train-moe": {"findings": ["dead-expert"]}}),
        healthy(**{"validation-scores": {"passed": True}}),
        healthy(**{"validation-scores": None}),
    ],
)
def test_metrics_that_do_not_tell_are_no_good_health(params: Params, metrics: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"do not tell of its validation and of the health .* register it$"):
        gather_evidence(("a" * 64, None), None, metrics, "moe", params)
