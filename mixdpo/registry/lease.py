"""How writers and garbage collection keep out of each other's way (docs/registry.md has the argument).

A writer leaves a lease, which names the digests that it is about to refer to, before it looks whether they are there. A
collection leaves a plan, which names what it is about to remove, before it looks for leases and reads the logs. So one
of the two always sees the other: either the collection spares what the lease names, or the writer waits for its end.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress

from mixdpo.errors import StorageError, TransientError
from mixdpo.files import canonical_json
from mixdpo.registry.store import Store, Stored

LEASES, PLANS = "leases/", "plans/"
LEASE_SECONDS = 7 * 86400.0  # after which a collection may take a writer for dead
PLAN_SECONDS = 3600.0  # after which a writer may take a collection for dead; it itself stops at half of that
POLL_SECONDS = 0.5

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class Lease:
    """What one writer is about to refer to. It ends with the `with` block, when an entry refers to it or never will."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._notes: list[Stored] = []
        self._covered: set[str] = set()

    def cover(self, digests: Iterable[str]) -> None:
        """Have these spared from now on, once each collection that had planned to remove one of them has ended."""
        self._covered.update(digests)
        note = leave_note(self._store, LEASES, self._covered)
        self._notes.append(note)
        began, told = time.monotonic(), False
        while planned := [plan for plan, doomed in notes(self._store, PLANS) if doomed & self._covered]:
            for plan in planned:
                if note.modified - plan.modified + time.monotonic() - began > PLAN_SECONDS:
                    self._store.remove(plan)
            if not told:
                print("waiting for a garbage collection of the registry to end", file=sys.stderr, flush=True)
                told = True
            time.sleep(POLL_SECONDS)

    def settle(self, put: Callable[[], object]) -> None:
        """After the commit: `put` all again where a collection took this writer for dead before that."""
        if not all(self._store.exists(note.key) for note in self._notes):
            self.cover(())
            put()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        for note in self._notes:
            with suppress(StorageError, TransientError):  # not everyone may remove; it expires then
                self._store.remove(note)


def leave_note(store: Store, prefix: str, digests: Iterable[str]) -> Stored:
    """Put a list of digests below `prefix`, and say when that was by the store's clock."""
    body = canonical_json({"schema": 1, "digests": sorted(digests)})
    while True:
        key = f"{prefix}{uuid.uuid4().hex}.json"
        store.put_once(key, body, hashlib.sha256(body).hexdigest())
        for note in store.list(key):
            return note
        # somebody took it for a dead one's at once


def notes(store: Store, prefix: str) -> list[tuple[Stored, set[str]]]:
    """All lists of digests below `prefix`, but those that vanish meanwhile."""
    found = []
    for note in store.list(prefix):
        with suppress(FileNotFoundError):
            found.append((note, digests_in(store.read(note.key, note.size).decode())))
    return found


def digests_in(text: str) -> set[str]:
    """Everything in `text` that could be a sha256."""
    return set(_DIGEST.findall(text))
