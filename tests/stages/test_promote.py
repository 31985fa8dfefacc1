"""Promotion of real, tiny policies: judged on real prompts by real reward models, decided inside the commit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mixdpo.config import Params, parse_params
from mixdpo.errors import ConfigError, PromotionRefused, RegistryError
from mixdpo.evaluation.standing import Standing
from mixdpo.files import read_json, write_json
from mixdpo.layout import TABLES, Layout
from mixdpo.registry import Registry, Version
from mixdpo.stages import evaluate, promote
from mixdpo.stages.register import register

STYLES = ("grammar", "informativeness", "sentiment")


def ruled(params: Params, policy: str = "moe", **rules: object) -> Params:
    """These parameters with lenient rules, a registry in the project, and another policy to publish."""
    values = params.model_dump(mode="json", by_alias=True)
    values["registry"] |= {"url": "registry", "policy": policy, "refuse": []}
    values["promotion"] |= {"delta": 10.0, "must_beat": 0, "comparisons": 2, **rules}
    return parse_params(values)


@pytest.fixture(scope="module")
def evaluated(toy_params: Params, toy_project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The toy project, evaluated, with dpo, mix and moe registered as v1, v2 and v3."""
    layout = Layout(tmp_path_factory.mktemp("promoted") / "project")
    shutil.copytree(toy_project.root, layout.root)
    for table in TABLES:
        verdict = read_json(layout.metrics(f"validation-{table}"))
        write_json(layout.metrics(f"validation-{table}"), verdict | {"expectations": []})
    evaluate.run(toy_params, layout)
    for name in ("dpo", "mix", "moe"):
        register(ruled(toy_params, name), layout, name)
    return layout


@pytest.fixture(scope="module")
def judged_anew(evaluated: Layout, toy_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The same project with other judges, dpo in production, and with them another evaluation: moe is v4 there."""
    layout = Layout(tmp_path_factory.mktemp("judged") / "project")
    shutil.copytree(evaluated.root, layout.root)
    params = ruled(toy_params)
    promote.promote(params, layout, "reviews@v1", None, "the first")
    for name in params.rewards.dimensions:
        shutil.rmtree(layout.reward_model(name, "judge"))
        shutil.copytree(layout.reward_model(name, "annotator"), layout.reward_model(name, "judge"))
    evaluate.run(params, layout)
    assert register(params, layout, "other judges").number == 4
    return layout


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Layout], Layout]:
    """A copy of a project to change, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda layout: Layout(Path(shutil.copytree(layout.root, tmp_path / "project")))


@pytest.fixture
def project(evaluated: Layout, copied: Callable[[Layout], Layout]) -> Layout:
    return copied(evaluated)


@pytest.fixture
def other(judged_anew: Layout, copied: Callable[[Layout], Layout]) -> Layout:
    return copied(judged_anew)


@pytest.fixture
def registry(project: Layout) -> Registry:
    return Registry(project.root / "registry")


@pytest.fixture
def params(toy_params: Params) -> Params:
    return ruled(toy_params)


def test_the_first_is_promoted_without_a_comparison(params: Params, project: Layout, registry: Registry) -> None:
    done = promote.promote(params, project, "reviews@v1", None, "the first")
    assert (done.number, done.aliases) == (1, ("production",))
    assert done.written is not None
    assert done.written.decision is not None
    assert done.written.decision.reasons == ("there was no champion to compare with",)
    again = promote.promote(params, project, "reviews@v1", "production", "again")
    assert (again.written, len(registry.history("reviews").entries)) == (None, 4)


def test_the_differences_are_those_of_the_samples_themselves(
    params: Params, project: Layout, registry: Registry
) -> None:
    """moe against dpo as strangers see them, from the table of samples alone."""
    params = ruled(params, comparisons=0)
    promote.promote(params, project, "reviews@v1", None, "the first")
    done = promote.promote(params, project, "reviews@v3", None, "better")
    assert done.written is not None
    decision = done.written.decision
    assert decision is not None
    rows = pq.read_table(project.evaluation / "samples.parquet").to_pylist()
    for style in STYLES:
        column = f"judge_{style}"
        scale = np.std([row[column] for row in rows if row["policy"] == "sft"])
        moe, dpo = (
            sum(row["weight"] * row[column] for row in rows if row["policy"] == name) / 16 for name in ("moe", "dpo")
        )
        assert decision.styles[style].mean == pytest.approx((moe - dpo) / scale, abs=1e-9)
        assert decision.styles[style].prompts == 8
    evidence = json.loads(registry.evidence(decision) or b"")
    assert (evidence["challenger"], evidence["champion"]) == (done.digest, decision.champion)
    standing = Standing.read(
        {suffix: registry.read(done, f"run/standing{suffix}") for suffix in (".json", ".safetensors")}, "x"
    )
    assert (decision.prompts, evidence["terms"]) == (standing.terms.prompts, standing.terms.model_dump())


def test_what_the_rules_refuse_writes_nothing_and_is_told_with_a_table(
    params: Params, project: Layout, registry: Registry
) -> None:
    promote.promote(params, project, "reviews@v1", None, "the first")
    strict = ruled(params, delta=0.0, must_beat=3)
    with pytest.raises(PromotionRefused) as refused:
        promote.promote(strict, project, "reviews@v2", None, "better?")
    lines = str(refused.value).splitlines()
    assert lines[0] == "reviews@v2 does not become reviews@production"
    assert lines[1].startswith("reviews@v2 against reviews@v1: 8 held-out prompts, 2 comparisons of a person known")
    assert [line.split()[0] for line in lines[3:6]] == list(STYLES)
    assert "must_beat is 3" in lines[-1]
    assert registry.resolve("reviews@production").number == 1
    assert len(registry.history("reviews").entries) == 4
    examined = promote.examine(strict, project, "reviews@v2")
    assert (examined.decision.passed, examined.text) == (False, "\n".join(lines[1:]))


def test_a_person_may_overrule_and_the_log_says_so(params: Params, project: Layout, registry: Registry) -> None:
    promote.promote(params, project, "reviews@v1", None, "the first")
    done = promote.promote(ruled(params, delta=0.0, must_beat=3), project, "reviews@v2", None, "I insist", force=True)
    assert done.number == 2
    entry = Registry(project.root / "registry").history("reviews").entries[-1]
    assert entry.decision is not None
    assert (entry.reason, entry.decision.forced, entry.decision.passed) == ("I insist", True, False)
    assert registry.evidence(entry.decision)
    allowed = promote.promote(params, project, "reviews@v3", None, "better", force=True)
    assert allowed.written is not None
    assert allowed.written.decision is not None
    assert not allowed.written.decision.forced
    assert registry.rollback("reviews", "production", "worse after all").number == 2


def test_findings_and_gates_of_its_own_run_are_looked_at(params: Params, project: Layout) -> None:
    finding = {"name": "dead-expert", "message": "expert 2 is not in use"}
    summary = read_json(project.metrics("train-moe"))
    write_json(project.metrics("train-moe"), summary | {"findings": [finding]})
    verdict = read_json(project.metrics("validation-scores"))
    write_json(project.metrics("validation-scores"), verdict | {"passed": False})
    assert register(params, project, "ill").number == 4
    with pytest.raises(PromotionRefused, match=r"found dead-expert; validation of its data: scores: the gate did not"):
        promote.promote(params, project, "reviews@v4", None, "the first")


def test_a_champion_of_other_judges_is_judged_again_by_the_challengers(
    params: Params, evaluated: Layout, other: Layout
) -> None:
    done = promote.promote(ruled(params, comparisons=0), other, "reviews@v4", None, "other judges")
    before, after = (read_json(each.metrics("evaluation"))["policies"] for each in (evaluated, other))
    assert after["dpo"]["rewards"]["judge"] != before["dpo"]["rewards"]["judge"]
    assert done.written is not None
    assert done.written.decision is not None
    # the champion was dpo, so its figures under the new judges are in this run's evaluation too
    rows = pq.read_table(other.evaluation / "samples.parquet").to_pylist()
    for name in STYLES:
        scale = np.std([row[f"judge_{name}"] for row in rows if row["policy"] == "sft"])
        gap = after["moe"]["rewards"]["minus_dpo"]["judge"][name]["mean"] / scale
        assert done.written.decision.styles[name].mean == pytest.approx(gap, abs=1e-6)
    assert Registry(other.root / "registry").resolve("reviews@production").number == 4


def test_it_is_judged_once_and_read_from_the_cache_after_that(params: Params, other: Layout, tmp_path: Path) -> None:
    first = promote.examine(params, other, "reviews@v4").text
    [kept] = (tmp_path / "cache" / "mixdpo" / "standings").glob("*")
    judges = other.rewards.rename(tmp_path / "judges")
    assert promote.examine(params, other, "reviews@v4").text == first
    (kept / "standing.safetensors").write_bytes(b"damaged")
    with pytest.raises(RegistryError, match="was judged on other prompts"):
        promote.examine(params, other, "reviews@v4")
    judges.rename(other.rewards)
    assert promote.examine(params, other, "reviews@v4").text == first


def test_without_the_challengers_prompts_and_judges_nothing_is_guessed(params: Params, other: Layout) -> None:
    shutil.rmtree(other.reward_model("grammar", "judge"))
    shutil.copytree(other.reward_model("sentiment", "judge"), other.reward_model("grammar", "judge"))
    for breaks in (lambda: None, lambda: other.validated("preferences").unlink()):
        breaks()
        with pytest.raises(RegistryError, match=r"reviews@v1 was judged on other prompts .* `dvc pull`"):
            promote.promote(params, other, "reviews@v4", None, "better")
    done = promote.promote(params, other, "reviews@v4", None, "v1 is broken", force=True)
    assert done.written is not None
    assert done.written.decision is not None
    assert done.written.decision.evidence is None
    assert done.written.decision.reasons[0].startswith("the rules could not be asked: reviews@v1 was judged on other")


def test_of_two_promotions_the_slower_is_compared_with_the_quicker(
    params: Params, project: Layout, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real second writer promotes v2 after the first compared v3 with v1 and before it wrote."""
    promote.promote(params, project, "reviews@v1", None, "the first")
    rule, against = promote._Bench.rule, []

    def ruling(bench: promote._Bench, challenger: Version, champion: Version | None) -> object:
        found = rule(bench, challenger, champion)
        assert champion is not None
        against.append((challenger.number, champion.number))
        if against == [(3, 1)]:
            promote.promote(params, project, "reviews@v2", None, "quicker")
        return found

    monkeypatch.setattr(promote._Bench, "rule", ruling)
    promote.promote(params, project, "reviews@v3", None, "slower")
    assert against == [(3, 1), (2, 1), (3, 2)]
    entries = registry.history("reviews").entries[-2:]
    history = registry.history("reviews")
    assert [(entry.reason, history.number(entry.decision.champion)) for entry in entries] == [  # type: ignore
        ("quicker", 1),
        ("slower", 2),
    ]


def test_only_aliases_that_the_rules_guard_are_promoted(params: Params, project: Layout) -> None:
    with pytest.raises(ConfigError, match=r"promotion\.aliases has production, not staging: `mixdpo alias` moves"):
        promote.promote(params, project, "reviews@v1", "staging", "why not")


def test_a_version_without_results_says_what_to_do(params: Params, project: Layout) -> None:
    promote.promote(params, project, "reviews@v1", None, "the first")
    shutil.rmtree(project.evaluation)
    assert register(params, project, "without").number == 4
    with pytest.raises(RegistryError, match=r"^reviews@v4 was registered without its held-out results .*evaluate"):
        promote.promote(params, project, "reviews@v4", None, "better")
