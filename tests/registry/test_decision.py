"""A promotion is decided inside the commit, against the champion of the try that succeeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixdpo.errors import PromotionRefused, RegistryError
from mixdpo.registry import Registry, Version
from mixdpo.registry.decision import Decision, Rules, Ruling
from mixdpo.registry.store import blob_key

Publish = Callable[..., Version]
RULES = Rules(delta=0.05, confidence=0.95, must_beat=1, comparisons=8, refuse="any", validation="clean")


def allow(champion: Version | None, evidence: bytes = b"{}") -> Ruling:
    decision = Decision(
        passed=True,
        forced=False,
        reasons=(),
        rules=RULES,
        champion=champion and champion.digest,
        styles={},
        findings=(),
        validation=(),
        prompts=None,
        judges=None,
        evidence=hashlib.sha256(evidence).hexdigest(),
    )
    return Ruling(decision, evidence)


def refuse(_: Version | None) -> Ruling:
    raise PromotionRefused("worse for grammar")


def test_a_promotion_is_an_entry_with_its_decision_and_its_evidence_a_blob(
    registry: Registry, location: Path, publish: Publish
) -> None:
    one = publish(1)
    done = registry.promote(one, "production", "the first", allow)
    assert (done.number, done.aliases) == (1, ("production", "staging"))
    entry = Registry(location).history("reviews").entries[-1]
    assert (entry.op, entry.reason, entry.alias, entry.seq) == ("promote", "the first", "production", 2)
    assert entry.decision == allow(None).decision
    assert registry.evidence(entry.decision) == b"{}"
    again = registry.promote(one, "production", "again", refuse)
    assert (again.number, again.written) == (1, None)


def test_what_is_refused_writes_nothing(registry: Registry, location: Path, publish: Publish) -> None:
    one, two = publish(1), publish(2)
    registry.promote(one, "production", "the first", allow)
    before = sorted(location.rglob("*"))
    with pytest.raises(PromotionRefused, match="worse for grammar"):
        registry.promote(two, "production", "better?", refuse)
    assert sorted(location.rglob("*")) == before


def test_another_promotion_in_between_is_the_champion_of_the_next_try(
    registry: Registry, location: Path, publish: Publish
) -> None:
    one, two, three = publish(1), publish(2), publish(3)
    registry.promote(one, "production", "the first", allow)
    seen: list[int] = []

    def judge(champion: Version | None) -> Ruling:
        assert champion is not None
        seen.append(champion.number)
        if len(seen) == 1:
            Registry(location).promote(two, "production", "quicker", allow)
        return allow(champion, f"against {champion.number}".encode())

    done = registry.promote(three, "production", "slower", judge)
    assert seen == [1, 2]
    assert done.number == 3
    history = Registry(location).history("reviews")
    assert [(entry.reason, entry.decision and entry.decision.champion) for entry in history.entries[3:]] == [
        ("the first", None),
        ("quicker", one.digest),
        ("slower", two.digest),
    ]
    assert registry.rollback("reviews", "production", "worse after all").number == 2


def test_of_many_promotions_at_once_each_was_decided_against_the_one_before(location: Path, publish: Publish) -> None:
    versions = [publish(seed, alias=None) for seed in range(8)]

    def promote(version: Version) -> None:
        Registry(location).promote(version, "production", f"v{version.number}", allow)

    with ThreadPoolExecutor(len(versions)) as pool:
        list(pool.map(promote, versions))
    entries = Registry(location).history("reviews").entries[len(versions) :]
    assert sorted(entry.reason for entry in entries) == sorted(f"v{version.number}" for version in versions)
    champions = [entry.decision.champion for entry in entries if entry.decision]
    assert champions == [None, *(entry.manifest for entry in entries[:-1])]


def test_a_challenger_that_is_refused_in_the_second_try_does_not_replace_the_new_champion(
    registry: Registry, location: Path, publish: Publish
) -> None:
    one, two, three = publish(1), publish(2), publish(3)
    registry.promote(one, "production", "the first", allow)

    def judge(champion: Version | None) -> Ruling:
        if champion == registry.resolve("reviews@v2"):
            return refuse(champion)
        Registry(location).promote(two, "production", "quicker", allow)
        return allow(champion)

    with pytest.raises(PromotionRefused):
        registry.promote(three, "production", "slower", judge)
    assert Registry(location).resolve("reviews@production").number == 2


def test_nothing_but_promotion_and_going_back_moves_a_promoted_alias(registry: Registry, publish: Publish) -> None:
    one = publish(1)
    publish(2)
    registry.promote(one, "production", "the first", allow)
    for move in (
        lambda: registry.set_alias("reviews", "production", "v2", "past the rules"),
        lambda: publish(3, alias="production"),
    ):
        with pytest.raises(RegistryError, match=r"^reviews@production was promoted by rules, so nothing else moves it"):
            move()
    assert [version.number for version in registry.list()] == [1, 2]


def test_evidence_that_is_lost_or_changed_is_told(
    registry: Registry, location: Path, publish: Publish, overwrite: Callable[[Path, bytes], None]
) -> None:
    registry.promote(publish(1), "production", "the first", allow)
    decision = registry.history("reviews").entries[-1].decision
    assert decision is not None
    blob = location / blob_key(str(decision.evidence))
    overwrite(blob, b"[]")
    with pytest.raises(RegistryError, match=r"^evidence was changed: expected sha256 44136fa3"):
        registry.evidence(decision)
    blob.unlink()
    with pytest.raises(RegistryError, match=r"^evidence is lost: .* has no blobs/sha256/44136fa3"):
        registry.evidence(decision)


def test_the_same_made_by_another_commit_is_the_same_version(
    registry: Registry, location: Path, policy: Path, tmp_path: Path
) -> None:
    def lineage(commit: str, packages: str, threads: int, epochs: int) -> dict[str, object]:
        params = {"compute": {"threads": threads}, "training": {"epochs": epochs}, "registry": {"alias": commit}}
        return {"git": {"commit": commit}, "packages": packages, "params": params, "metrics": {"reward": 0.5}}

    run = tmp_path / "params.yaml"
    run.write_text("schema: 1\n", encoding="utf-8")
    first = registry.register("reviews", policy, lineage("a", "1.0", 1, 1), "staging", "one", {"run/params.yaml": run})
    before = sorted(location.rglob("*"))
    run.write_text("schema: 1 # a comment\n", encoding="utf-8")
    same = registry.register("reviews", policy, lineage("b", "1.1", 2, 1), "staging", "two", {"run/params.yaml": run})
    assert (same.digest, same.written, same.created) == (first.digest, None, False)
    assert sorted(location.rglob("*")) == before
    moved = registry.register("reviews", policy, lineage("c", "1.1", 2, 1), "next", "three", {"run/params.yaml": run})
    assert (moved.digest, moved.aliases, moved.created) == (first.digest, ("next", "staging"), False)
    other = registry.register("reviews", policy, lineage("b", "1.1", 2, 2), "staging", "four", {"run/params.yaml": run})
    assert (other.number, other.created) == (2, True)


def test_registering_the_same_from_another_commit_puts_lost_blobs_back(
    registry: Registry, location: Path, policy: Path
) -> None:
    version = registry.register("reviews", policy, {"git": "a"}, None, "one")
    blob = location / blob_key(version.manifest.files["mixture.json"].sha256)
    blob.unlink()
    registry.register("reviews", policy, {"git": "b"}, None, "two")
    assert registry.verify("reviews").versions == 1
