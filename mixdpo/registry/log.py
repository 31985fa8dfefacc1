"""The log of a name: numbered entries, each holding the sha256 of the one before; and the state that they fold to.

Pure functions. Versions, aliases and history are nothing but this fold, so nothing can contradict the log.

- `register`: `manifest` becomes the next version; with `alias`, that alias points to it.
- `alias`: `alias` points to `manifest`, a version already.
- `promote`: the same, decided by rules against what the alias pointed to (mixdpo.promotion). From then on that alias
  moves by `promote` and `rollback` alone.
- `rollback`: `alias` goes back to what it pointed to before, which is `manifest`; again, and it goes back further.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from mixdpo.errors import RegistryError
from mixdpo.files import canonical_json
from mixdpo.registry.decision import Decision, Line
from mixdpo.registry.manifest import Digest, Record, faults
from mixdpo.registry.store import entry_key

SCHEMA = 2
ADDED = ("content", "decision")  # by schema 2; entries of schema 1 stay as they are
LIMIT = 64 << 10  # bytes of an entry
OWN = 10 << 10  # of these at most what the registry adds to a change: `by` and `at` and numbers

ALIAS = r"(?!v[0-9]+$)[a-z][a-z0-9-]*"  # never what reads as a version number


def _alias(text: str) -> str:
    if not re.fullmatch(ALIAS, text):
        raise ValueError(f"{text!r} is no alias; expected small letters, digits and -, and no version number like v3")
    return text


Alias = Annotated[str, AfterValidator(_alias), Field(max_length=100)]
Operation = Literal["register", "alias", "promote", "rollback"]


class Change(Record):
    """What a new entry is to say; the registry adds its number, its place in the chain, who and when."""

    op: Operation
    manifest: Digest
    alias: Alias | None
    reason: Line
    content: Digest | None = None  # of a version that is registered: `Manifest.content`
    decision: Decision | None = None  # of a promotion


class Entry(Change):
    """One line of the log."""

    schema_version: Annotated[Literal[1, 2], Field(alias="schema")]
    seq: Annotated[int, Field(ge=1)]
    prev: Digest | None  # sha256 of the bytes of entry seq - 1; None for the first
    by: Line
    at: Line  # UTC, ISO 8601
    nonce: Line  # makes the bytes unlike any other writer's

    def to_bytes(self) -> bytes:
        return canonical_json(self.model_dump(by_alias=True, exclude=set(ADDED) if self.schema_version == 1 else None))

    @property
    def blobs(self) -> tuple[str, ...]:
        """sha256 of the blobs that this entry itself refers to, besides those of its manifest."""
        return (self.decision.evidence,) if self.decision and self.decision.evidence else ()


@dataclass(frozen=True)
class State:
    """What a log says after its entries."""

    name: str
    head: str | None = None  # sha256 of the last entry's bytes
    entries: tuple[Entry, ...] = ()
    versions: tuple[str, ...] = ()  # manifest digests; version n is at n - 1
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)  # all that each pointed to; the last counts

    def number(self, manifest: str) -> int:
        """Which version this manifest is, from 1."""
        return self.versions.index(manifest) + 1

    def target(self, alias: str) -> str | None:
        """The manifest that `alias` points to; None where there is no such alias."""
        stack = self.aliases.get(alias)
        return stack[-1] if stack else None

    def same_as(self, content: str) -> str | None:
        """The manifest of the version with this `Manifest.content`; None where there is none."""
        return next((e.manifest for e in self.entries if e.op == "register" and e.content == content), None)

    def guarded(self, alias: str) -> bool:
        """Whether `alias` was ever promoted: only rules, and going back, move it then."""
        return any(entry.op == "promote" and entry.alias == alias for entry in self.entries)

    def aliases_of(self, manifest: str) -> tuple[str, ...]:
        return tuple(sorted(alias for alias, stack in self.aliases.items() if stack[-1] == manifest))


def change(
    op: Operation,
    manifest: str,
    alias: str | None,
    reason: str,
    content: str | None = None,
    decision: Decision | None = None,
) -> Change:
    """A checked change. Raises RegistryError where the alias or the reason is not one."""
    try:
        noted = Change(op=op, manifest=manifest, alias=alias, reason=reason, content=content, decision=decision)
    except ValidationError as error:
        raise RegistryError(f"the registry cannot note this: {faults(error)}") from None
    if (size := len(canonical_json(noted.model_dump()))) > LIMIT - OWN:
        raise RegistryError(f"the registry cannot note this: {size} bytes, expected at most {LIMIT - OWN}; shorten it")
    return noted


def extend(state: State, bodies: Iterable[bytes]) -> State:
    """`state` after the entries with these bytes, in order: the fold. `state` itself stays as it was.

    Raises:
        RegistryError: an entry that does not follow the one before it, or says what cannot be; names the entry.
    """
    head, entries, versions = state.head, list(state.entries), list(state.versions)
    aliases = dict(state.aliases)
    known = set(versions)
    for body in bodies:
        seq = len(entries) + 1
        key = entry_key(state.name, seq)
        entry = _parse(body, key)
        if (entry.seq, entry.prev) != (seq, head):
            raise RegistryError(
                f"the log of {state.name} is broken at {key}: expected entry {seq} after {head or 'nothing'}, got "
                f"entry {entry.seq} after {entry.prev or 'nothing'}; an entry was changed or lost: restore log/"
                f"{state.name}/ from a copy"
            )
        if fault := _impossible(entry, known, aliases):
            raise RegistryError(f"{key} says what cannot be: {fault}; restore log/{state.name}/ from a copy")
        if entry.op == "register":
            versions.append(entry.manifest)
            known.add(entry.manifest)
        if entry.op == "rollback" and entry.alias:
            aliases[entry.alias] = aliases[entry.alias][:-1]
        elif entry.alias:
            aliases[entry.alias] = (*aliases.get(entry.alias, ()), entry.manifest)
        entries.append(entry)
        head = hashlib.sha256(body).hexdigest()
    return State(state.name, head, tuple(entries), tuple(versions), aliases)


def _parse(body: bytes, key: str) -> Entry:
    try:
        entry = Entry.model_validate_json(body[: LIMIT + 1])
    except ValidationError as error:
        raise RegistryError(f"{key} is not a log entry that this mixdpo reads: {faults(error)}") from None
    if entry.to_bytes() != body:
        raise RegistryError(f"{key} is not in canonical form, so it was changed; restore it from a copy")
    return entry


def _impossible(entry: Entry, known: set[str], aliases: dict[str, tuple[str, ...]]) -> str | None:
    if (entry.op == "promote") != (entry.decision is not None):
        return f"{entry.op} {'without' if entry.op == 'promote' else 'with'} a decision"
    if entry.op == "register":
        return f"{entry.manifest} becomes a version a second time" if entry.manifest in known else None
    if entry.alias is None:
        return f"{entry.op} without an alias"
    if entry.manifest not in known:
        return f"{entry.alias} points to {entry.manifest}, which is no version"
    if entry.decision is not None:
        champion = (aliases.get(entry.alias) or (None,))[-1]
        if entry.decision.champion != champion:
            return f"it was decided against {entry.decision.champion}, but {entry.alias} pointed to {champion}"
        if not (entry.decision.passed or entry.decision.forced):
            return f"{entry.alias} was promoted though the rules refused it"
    if entry.op == "rollback" and aliases.get(entry.alias, ())[-2:-1] != (entry.manifest,):
        return f"{entry.alias} goes back to {entry.manifest}, to which it did not point before"
    return None
