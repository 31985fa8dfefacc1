from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mixdpo.config import Params
from mixdpo.config.outcome import Promotion
from mixdpo.errors import RegistryError
from mixdpo.evaluation.standing import Standing
from mixdpo.evaluation.statistics import Interval
from mixdpo.promotion import Evidence, compare, decide
from mixdpo.promotion.evidence import Compared
from mixdpo.registry.log import LIMIT, change

STYLES = ("grammar", "informativeness", "sentiment")
RULES = Promotion(
    aliases=("production",),
    delta=0.1,
    confidence=0.95,
    must_beat=1,
    comparisons=8,
    refuse="any",
    validation="passed",
)
BETTER, SAME, UNSURE, WORSE = (0.05, 0.3), (-0.05, 0.05), (-0.2, 0.4), (-0.5, -0.2)


def evidence(*intervals: tuple[float, float], **changes: Any) -> Evidence:
    styles = {
        name: Compared(Interval((low + high) / 2, low, high, 10, 10), np.zeros(10))
        for name, (low, high) in zip(STYLES, intervals, strict=False)
    }
    values: dict[str, Any] = {
        "challenger": "a" * 64,
        "champion": "b" * 64,
        "terms": None,
        "prompts": (),
        "styles": styles,
        "findings": {},
        "failed": (),
        "warned": (),
    }
    return Evidence(**{**values, **changes})


def verdict(found: Evidence, **rules: Any) -> tuple[bool, tuple[str, ...]]:
    decision = decide(found, RULES.model_copy(update=rules)).decision
    return decision.passed, decision.reasons


def test_better_for_one_and_worse_for_none_is_promoted() -> None:
    assert verdict(evidence(BETTER, SAME, SAME)) == (True, ())


@pytest.mark.parametrize(
    ("intervals", "told"),
    [
        ((BETTER, BETTER, WORSE), "may be worse at 95% by more than delta 0.1: sentiment by up to 0.5"),
        # not shown to be no worse, which is not the same as shown to be worse
        ((BETTER, SAME, UNSURE), "may be worse at 95% by more than delta 0.1: sentiment by up to 0.2"),
        ((SAME, SAME, SAME), "better for 0 of 3 styles, must_beat is 1"),
    ],
)
def test_worse_for_one_or_better_for_none_is_refused(intervals: Any, told: str) -> None:
    assert verdict(evidence(*intervals)) == (False, (told,))


def test_one_policy_judged_twice_is_not_better_than_itself() -> None:
    rounding = (1e-9, 2e-9)
    assert verdict(evidence(rounding, rounding, rounding)) == (False, ("better for 0 of 3 styles, must_beat is 1",))


def test_all_that_is_wrong_is_told() -> None:
    found = evidence(
        WORSE, SAME, SAME, findings={"dead-expert": "…"}, failed=("scores: stopped",), warned=("reviews: words",)
    )
    passed, reasons = verdict(found, validation="clean")
    assert not passed
    assert len(reasons) == 5
    assert reasons[2:] == (
        "the health check of its training found dead-expert",
        "validation of its data: scores: stopped",
        "validation of its data warned of reviews: words",
    )


def test_the_rules_say_what_counts() -> None:
    assert verdict(evidence(SAME, SAME, SAME), must_beat=0)[0]
    assert not verdict(evidence(BETTER, SAME, SAME), must_beat=2)[0]
    assert verdict(evidence(BETTER, BETTER, UNSURE), delta=0.2)[0]
    ill = evidence(BETTER, SAME, SAME, findings={"dead-expert": "…"})
    assert verdict(ill, refuse=("identical-experts",))[0]
    assert not verdict(ill, refuse=("identical-experts", "dead-expert"))[0]
    warned = evidence(BETTER, SAME, SAME, warned=("reviews: words",))
    assert [verdict(warned, validation=how)[0] for how in ("passed", "clean")] == [True, False]


def test_the_first_is_not_compared_but_must_be_healthy() -> None:
    note = "there was no champion to compare with"
    assert verdict(evidence(champion=None)) == (True, (note,))
    passed, reasons = verdict(evidence(champion=None, findings={"dead-expert": "…"}))
    assert (passed, reasons) == (False, ("the health check of its training found dead-expert", note))


def test_a_decision_names_its_evidence_and_fits_an_entry() -> None:
    many = {f"style-{n}": Compared(Interval(-1 / 3, -2 / 3, 1 / 7, 10, 10), np.zeros(1000)) for n in range(300)}
    found = evidence(styles=many, warned=tuple(f"reviews: rule {n}" for n in range(1000)))
    decision, body = decide(found, RULES.model_copy(update={"validation": "clean"}))
    assert decision.evidence == hashlib.sha256(body or b"").hexdigest()
    assert decide(found, RULES).evidence == body
    entry = change("promote", "a" * 64, "production", "why", decision=decision)
    assert len(entry.model_dump_json()) < LIMIT * 0.9
    assert "and 995 more" in decision.reasons[-1]
    too_many = decision.model_copy(update={"styles": {f"s{n}": decision.styles["style-0"] for n in range(2000)}})
    with pytest.raises(RegistryError, match=r"cannot note this: .* bytes, expected at most"):
        change("promote", "a" * 64, "production", "why", decision=too_many)


@pytest.mark.parametrize(("gain", "most", "least"), [(0.0, 0.25, 0.0), (-0.35, 0.06, 0.0), (0.4, 1.0, 0.9)])
def test_how_often_the_gate_is_wrong(
    standing: Callable[..., Standing], params: Params, gain: float, most: float, least: float
) -> None:
    """Of 60 challengers with this true gain for all styles, how many take the champion's place.

    Noise of one prompt is 1, over 100 prompts 0.14 for a difference. An equal one gets through at most by chance for
    one of three styles; one that is worse by more than delta hardly ever; one that is better nearly always.
    """
    generator = np.random.default_rng(7)
    rules = params.promotion.model_copy(update={"delta": 0.3})
    settings = params.model_copy(
        update={"promotion": rules, "evaluation": params.evaluation.model_copy(update={"bootstrap": 200})}
    )
    promoted = 0
    for _ in range(60):
        own, other = ({name: generator.normal(size=100) for name in STYLES} for _ in range(2))
        styles = compare(standing({name: x + gain for name, x in own.items()}), standing(other), settings)
        promoted += decide(evidence(styles=styles), rules).decision.passed
    assert least <= promoted / 60 <= most
