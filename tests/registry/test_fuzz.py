"""Whatever bytes lie in a registry: reading them gives what they say, or a RegistryError, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import RegistryError
from mixdpo.files import canonical_json
from mixdpo.registry.decision import Decision
from mixdpo.registry.log import LIMIT, State, extend
from mixdpo.registry.manifest import Manifest, parse_manifest

DIGEST = "d" * 64
ENTRY: dict[str, Any] = {
    "schema": 2,
    "seq": 1,
    "prev": None,
    "op": "register",
    "manifest": DIGEST,
    "alias": "staging",
    "reason": "because",
    "content": DIGEST,
    "decision": None,
    "by": "ann@host",
    "at": "2026-01-01T00:00:00+00:00",
    "nonce": "1",
}
RULES = {"delta": 0.1, "confidence": 0.95, "must_beat": 1, "comparisons": 8, "refuse": "any", "validation": "clean"}
DECISION: dict[str, Any] = {
    "passed": True,
    "forced": False,
    "reasons": [],
    "rules": RULES,
    "champion": None,
    "styles": {"grammar": {"mean": 0.1, "low": 0.0, "high": 0.2, "prompts": 3}},
    "findings": [],
    "validation": [],
    "prompts": DIGEST,
    "judges": DIGEST,
    "evidence": DIGEST,
}
MANIFEST: dict[str, Any] = {
    "schema": 1,
    "name": "reviews",
    "kind": "mixture",
    "files": {"mixture.json": {"sha256": DIGEST, "size": 3}},
    "lineage": {"params": {"seed": 0}},
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([DIGEST, "../../etc", "v3", 10**400, -1, "\x00", "e\u0301"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value, by the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn, valid: Any) -> bytes:
    """The JSON of `valid` with a value replaced, a key added or bytes changed; or anything at all."""
    how = draw(st.sampled_from(["replace", "add", "flip", "cut", "any"]))
    if how == "any":
        return draw(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
    value: Any = json.loads(json.dumps(valid))
    if how in ("replace", "add"):
        path = draw(st.sampled_from(places(value)))
        holder: dict[str, Any] = {"root": value}
        place: Any = holder
        for key in ("root", *path[:-1]) if path else ():
            place = place[key]
        last = path[-1] if path else "root"
        if how == "add" and isinstance(place[last], dict):
            place[last][draw(st.text(max_size=8))] = draw(json_values)
        else:
            place[last] = draw(json_values)
        return json.dumps(holder["root"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    body = bytearray(canonical_json(value))
    at = draw(st.integers(0, len(body) - 1))
    if how == "cut":
        return bytes(body[:at])
    body[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(body)


@given(damaged(ENTRY) | damaged({**ENTRY, "op": "promote", "content": None, "decision": DECISION}))
def test_a_log_of_any_bytes_is_refused_or_is_what_it_says(body: bytes) -> None:
    try:
        state = extend(State("reviews"), [body])
    except RegistryError as error:
        assert "log/reviews/0000000001.json" in str(error)  # noqa: PT017 (most damage, but not all)
        return
    [entry] = state.entries
    assert entry.to_bytes() == body
    assert len(body) <= LIMIT


@given(damaged(MANIFEST))
def test_a_manifest_of_any_bytes_is_refused_or_is_what_it_says(body: bytes) -> None:
    try:
        manifest = parse_manifest(body, hashlib.sha256(body).hexdigest(), "that manifest")
    except RegistryError:
        return
    assert manifest.to_bytes() == body
    assert not any(path.startswith("/") or ".." in path.split("/") for path in manifest.files)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"a":' * 20_000,
        b"\xff\xfe",
        canonical_json({**MANIFEST, "lineage": {"n": 1}}).replace(b'"n":1', b'"n":1e999'),
        canonical_json({**MANIFEST, "lineage": {"n": 1}}).replace(b'"n":1', b'"n":NaN'),
        canonical_json({**MANIFEST, "lineage": {"n": 1}}).replace(b'"n":1', b'"n":' + b"9" * 5000),
        canonical_json({**MANIFEST, "lineage": {"n": 1}}).replace(b'"n":1', b'"n":"\\ud800"'),
        canonical_json({**MANIFEST, "lineage": {"n": 1}}).replace(b'"n":1', b'"n":' + b"[" * 150 + b"]" * 150),
    ],
)
def test_what_breaks_parsers_breaks_nothing_here(body: bytes) -> None:
    """A manifest that is read can be digested, told and compared, too."""
    use: list[Callable[[Manifest], object]] = [lambda it: it.content, Manifest.to_bytes, lambda it: it.digest]
    try:
        manifest = parse_manifest(body, hashlib.sha256(body).hexdigest(), "that manifest")
    except RegistryError:
        return
    for each in use:
        each(manifest)


@given(json_values)
def test_no_decision_is_made_of_anything_else(value: Any) -> None:
    body = canonical_json({**ENTRY, "op": "promote", "content": None, "decision": None})
    told = json.dumps(value).encode()
    with pytest.raises(RegistryError):
        extend(State("reviews"), [body.replace(b'"decision":null', b'"decision":' + told)])
    assert Decision.model_validate_json(json.dumps(DECISION)).passed
