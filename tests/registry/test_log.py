from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import RegistryError
from mixdpo.files import canonical_json
from mixdpo.registry.log import State, change, extend

DIGESTS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(5)]
ALIASES = ["staging", "production"]


RULES = {"delta": 0.05, "confidence": 0.95, "must_beat": 1, "comparisons": 8, "refuse": "any", "validation": "clean"}
DECISION = {
    "passed": True,
    "forced": False,
    "reasons": ["nothing to compare with"],
    "rules": RULES,
    "champion": None,
    "styles": {"grammar": {"mean": 0.1, "low": 0.01, "high": 0.2, "prompts": 12}},
    "findings": [],
    "validation": [],
    "prompts": None,
    "judges": None,
    "evidence": "e" * 64,
}


def write(steps: list[tuple[str, str, str | None]]) -> list[bytes]:
    """The bytes of a chained log with these (operation, manifest, alias); promotions are of schema 2, the rest of 1."""
    bodies: list[bytes] = []
    pointed: dict[str | None, list[str]] = {}
    for number, (operation, manifest, alias) in enumerate(steps, start=1):
        stack = pointed.setdefault(alias, [])
        entry = {
            "schema": 1,
            "seq": number,
            "prev": hashlib.sha256(bodies[-1]).hexdigest() if bodies else None,
            "op": operation,
            "manifest": manifest,
            "alias": alias,
            "reason": "because",
            "by": "ann@host",
            "at": "2026-01-01T00:00:00+00:00",
            "nonce": str(number),
        }
        if operation == "promote":
            champion = stack[-1] if stack else None
            entry |= {"schema": 2, "content": None, "decision": {**DECISION, "champion": champion}}
        if operation == "rollback":
            del stack[-1:]
        else:
            stack.append(manifest)
        bodies.append(canonical_json(entry))
    return bodies


def edited(body: bytes, **values: Any) -> bytes:
    return canonical_json({**json.loads(body), **values})


@st.composite
def possible_logs(draw: st.DrawFn) -> list[tuple[str, str, str | None]]:
    """Steps as a registry makes them, with what aliases point to kept in the plainest way: a list each."""
    steps: list[tuple[str, str, str | None]] = []
    versions: list[str] = []
    pointed: dict[str, list[str]] = {}
    for _ in range(draw(st.integers(1, 12))):
        fresh = [digest for digest in DIGESTS if digest not in versions]
        back = [alias for alias, targets in pointed.items() if len(targets) > 1]
        operations = ["register"] * bool(fresh) + ["alias", "promote"] * bool(versions) + ["rollback"] * bool(back)
        operation = draw(st.sampled_from(operations))
        if operation == "register":
            versions.append(fresh[0])
            alias = draw(st.sampled_from([None, *ALIASES]))
            steps.append((operation, fresh[0], alias))
            if alias:
                pointed.setdefault(alias, []).append(fresh[0])
        elif operation != "rollback":
            alias, target = draw(st.sampled_from(ALIASES)), draw(st.sampled_from(versions))
            steps.append((operation, target, alias))
            pointed.setdefault(alias, []).append(target)
        else:
            alias = draw(st.sampled_from(back))
            pointed[alias].pop()
            steps.append((operation, pointed[alias][-1], alias))
    return steps


@given(possible_logs())
def test_the_fold_says_what_the_steps_did(steps: list[tuple[str, str, str | None]]) -> None:
    state = extend(State("reviews"), write(steps))
    assert list(state.versions) == [manifest for operation, manifest, _ in steps if operation == "register"]
    for alias in ALIASES:
        moves = [manifest for _, manifest, moved in steps if moved == alias]
        assert state.target(alias) == (moves[-1] if moves else None)
    for number, manifest in enumerate(state.versions, start=1):
        assert state.number(manifest) == number
        assert state.aliases_of(manifest) == tuple(a for a in sorted(ALIASES) if state.target(a) == manifest)


@given(possible_logs(), st.integers(0, 12))
def test_continuing_a_fold_is_folding_the_whole(steps: list[tuple[str, str, str | None]], at: int) -> None:
    bodies = write(steps)
    begun = extend(State("reviews"), bodies[:at])
    before = (begun.versions, dict(begun.aliases))
    assert extend(begun, bodies[at:]) == extend(State("reviews"), bodies)
    assert (begun.versions, begun.aliases) == before


@given(possible_logs(), st.data())
def test_a_changed_lost_or_exchanged_entry_is_noticed(
    steps: list[tuple[str, str, str | None]], data: st.DataObject
) -> None:
    bodies = write(steps)
    if len(bodies) < 2:
        return
    at = data.draw(st.integers(0, len(bodies) - 2))  # the last one has no successor that would tell
    place = data.draw(st.integers(0, len(bodies[at]) - 1))
    flipped = bytearray(bodies[at])
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    for broken in (
        [*bodies[:at], bytes(flipped), *bodies[at + 1 :]],
        [*bodies[:at], *bodies[at + 1 :]],
        [*bodies[:at], bodies[at + 1], bodies[at], *bodies[at + 2 :]],
        [*bodies[: at + 1], *bodies[at:]],
    ):
        with pytest.raises(RegistryError, match="log/reviews/"):
            extend(State("reviews"), broken)


def test_a_broken_chain_names_the_entry_and_the_remedy() -> None:
    first, second = write([("register", DIGESTS[0], None), ("alias", DIGESTS[0], "staging")])
    changed = edited(first, reason="another")
    with pytest.raises(RegistryError) as error:
        extend(State("reviews"), [changed, second])
    assert str(error.value) == (
        f"the log of reviews is broken at log/reviews/0000000002.json: expected entry 2 after "
        f"{hashlib.sha256(changed).hexdigest()}, got entry 2 after {hashlib.sha256(first).hexdigest()}; "
        "an entry was changed or lost: restore log/reviews/ from a copy"
    )


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ([("register", DIGESTS[0], None)] * 2, "becomes a version a second time"),
        ([("alias", DIGESTS[0], "staging")], "staging points to .*, which is no version"),
        ([("register", DIGESTS[0], None), ("alias", DIGESTS[0], None)], "alias without an alias"),
        ([("register", DIGESTS[0], "staging"), ("rollback", DIGESTS[0], "staging")], "it did not point before"),
    ],
)
def test_an_entry_that_says_what_cannot_be_is_refused(steps: list[tuple[str, str, str | None]], fault: str) -> None:
    with pytest.raises(RegistryError, match=rf"^log/reviews/000000000[12]\.json says what cannot be: .*{fault}"):
        extend(State("reviews"), write(steps))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (edited(write([("register", DIGESTS[0], None)])[0], schema=3), "schema: Input should be 1 or 2"),
        (edited(write([("register", DIGESTS[0], None)])[0], content=None), "not in canonical form, so it was changed"),
        (edited(write([("register", DIGESTS[0], None)])[0], more=1), "more: Extra inputs are not permitted"),
        (edited(write([("register", DIGESTS[0], None)])[0], manifest="../../etc"), "manifest: String should match"),
        (write([("register", DIGESTS[0], None)])[0] + b"\n", "not in canonical form, so it was changed"),
    ],
)
def test_what_is_no_entry_is_refused(body: bytes, fault: str) -> None:
    with pytest.raises(RegistryError, match=rf"^log/reviews/0000000001\.json is .*{re.escape(fault)}"):
        extend(State("reviews"), [body])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"decision": None}, "promote without a decision"),
        ({"op": "alias"}, "alias with a decision"),
        (
            {"decision": DECISION | {"champion": DIGESTS[1]}},
            f"decided against {DIGESTS[1]}, but staging pointed to None",
        ),
        ({"decision": DECISION | {"passed": False}}, "staging was promoted though the rules refused it"),
    ],
)
def test_a_promotion_says_what_it_was_decided_on(changes: dict[str, Any], fault: str) -> None:
    first, second = write([("register", DIGESTS[0], None), ("promote", DIGESTS[0], "staging")])
    state = extend(State("reviews"), [first, second])
    assert (state.target("staging"), state.guarded("staging"), state.guarded("production")) == (DIGESTS[0], True, False)
    assert [entry.blobs for entry in state.entries] == [(), ("e" * 64,)]
    with pytest.raises(RegistryError, match=f"says what cannot be: .*{fault}"):
        extend(State("reviews"), [first, edited(second, **changes)])


def test_a_forced_promotion_stands_whatever_the_rules_say() -> None:
    first, second = write([("register", DIGESTS[0], None), ("promote", DIGESTS[0], "staging")])
    forced = edited(second, decision=DECISION | {"passed": False, "forced": True})
    assert extend(State("reviews"), [first, forced]).target("staging") == DIGESTS[0]


def test_a_version_is_found_by_what_it_is_made_of() -> None:
    first, second = write([("register", DIGESTS[0], None), ("register", DIGESTS[1], None)])
    second = edited(second, schema=2, content="c" * 64, decision=None)
    state = extend(State("reviews"), [first, second])
    assert (state.same_as("c" * 64), state.same_as("d" * 64)) == (DIGESTS[1], None)


@pytest.mark.parametrize("alias", ["v3", "v12", "Staging", "1st", "a b", "", "a/b", "a" * 101])
def test_an_alias_never_reads_as_something_else(alias: str) -> None:
    with pytest.raises(RegistryError, match=r"^the registry cannot note this: alias: "):
        change("alias", DIGESTS[0], alias, "because")


def test_a_reason_is_needed() -> None:
    with pytest.raises(RegistryError, match=r"^the registry cannot note this: reason: String should have at least 1"):
        change("alias", DIGESTS[0], "staging", "")
