"""The end of a run tells what ran, what it gave, and how to use it."""

from __future__ import annotations

from pathlib import Path

from flows.summary import aligned, registration_text, stage_table, summarise
from flows.tasks import StageResult
from mixdpo.registry import Registry

STAGES = (
    StageResult("prepare", "ran", 4.25),
    StageResult("train@moe", "restored", 1.0),
    StageResult("report", "unchanged", 0.0),
)
TABLE = "| policy | reward |\n| --- | ---: |\n| dpo | 0.5 |\n| moe | 0.75 |"


def test_stages_are_listed_with_outcome_and_seconds() -> None:
    assert stage_table(STAGES, 6.4) == (
        "prepare    ran           4.2 s\n"
        "train@moe  restored      1.0 s\n"
        "report     unchanged\n"
        "3 stages: 1 ran, 1 restored, 1 unchanged, in 6 s"
    )


def test_markdown_becomes_columns() -> None:
    assert aligned(TABLE) == "policy  reward\n------  ------\ndpo     0.5\nmoe     0.75"


def test_a_new_version_is_told_with_its_alias_and_the_same_again_is_told_too(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "mixture.json").write_text("{}")
    registry = Registry(tmp_path / "registry")
    first, again = (registry.register("reviews", policy, {"seed": 0}, "staging", "test") for _ in range(2))
    use = (
        'Use it      mixdpo generate reviews@staging "This film"\n'
        "            mixdpo pull reviews@staging\n"
        '            MixturePolicy.from_pretrained("reviews@staging")'
    )
    assert registration_text(first) == f"Registered  reviews@v1 (staging)\n{use}"
    assert (
        registration_text(again)
        == f"Registered  reviews@v1 (staging), the same as before: nothing new was published\n{use}"
    )
    whole = summarise(STAGES, 6.4, TABLE, Path("reports/index.html"), first)
    assert whole.endswith(f"Report      reports/index.html\n{registration_text(first)}")
    assert "Registered" not in summarise(STAGES, 6.4, TABLE, Path("reports/index.html"), None)
