from __future__ import annotations

from mixdpo.promotion.display import decision_text
from mixdpo.registry.decision import Decision, Difference, Rules

RULES = Rules(delta=0.1, confidence=0.95, must_beat=1, comparisons=8, refuse="any", validation="clean")


def decision(**changes: object) -> Decision:
    values: dict[str, object] = {
        "passed": True,
        "forced": False,
        "reasons": (),
        "rules": RULES,
        "champion": "b" * 64,
        "styles": {
            "sentiment": Difference(mean=-0.3, low=-0.5, high=-0.2, prompts=240),
            "grammar": Difference(mean=0.2, low=0.05, high=0.3, prompts=240),
            "books": Difference(mean=-1e-9, low=-0.05, high=0.05, prompts=240),
            "films": Difference(mean=0.0, low=-0.4, high=0.4, prompts=240),
        },
        "findings": (),
        "validation": (),
        "prompts": None,
        "judges": None,
        "evidence": None,
    }
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


def test_every_style_has_its_verdict() -> None:
    assert decision_text(decision(), "reviews@v4", "reviews@v3").splitlines() == [
        "reviews@v4 against reviews@v3: 240 held-out prompts, 8 comparisons of a person known, standard deviations of "
        "SFT's samples",
        "style      difference  95% interval",
        "books      +0.000      -0.050 to +0.050  not worse by 0.1",
        "films      +0.000      -0.400 to +0.400  may be worse",
        "grammar    +0.200      +0.050 to +0.300  better",
        "sentiment  -0.300      -0.500 to -0.200  worse",
        "health of training: no findings",
        "validation of data: passed, no warnings",
        "the rules allow it",
    ]


def test_what_was_forced_and_why_it_was_refused_is_told() -> None:
    forced = decision(
        passed=False, forced=True, champion=None, styles={}, reasons=("one", "two"), findings=("dead-expert",)
    )
    assert decision_text(forced, "reviews@v1", None).splitlines() == [
        "reviews@v1, against nobody",
        "health of training: dead-expert",
        "validation of data: passed, no warnings",
        "the rules refuse it, a person moved the alias nevertheless: one; two",
    ]
