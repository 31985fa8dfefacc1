"""Garbage collection: what no log entry refers to, no writer is about to refer to, and is old, is removed.

Why it can never remove what somebody needs is argued in docs/registry.md, and tried in tests/registry/test_collect.py.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from mixdpo.errors import RegistryError, TransientError
from mixdpo.registry.lease import LEASE_SECONDS, LEASES, PLAN_SECONDS, PLANS, digests_in, leave_note, notes
from mixdpo.registry.ledger import Ledger
from mixdpo.registry.manifest import LIMIT
from mixdpo.registry.parallel import in_parallel
from mixdpo.registry.store import Store, Stored, manifest_key

GRACE_SECONDS = 7 * 86400.0
COLLECTED = ("blobs/", "manifests/", "signatures/")
BATCH = 1000  # removed under one plan, so that nobody waits for long

# it goes on while the machine sleeps, where there is such a clock
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class Collected:
    garbage: list[Stored] = field(default_factory=list)  # removed, or what would be
    young: list[Stored] = field(default_factory=list)  # referred to by nothing, but not old enough
    leased: list[Stored] = field(default_factory=list)  # a running registration needs it


def collect(store: Store, delete: bool, grace: float = GRACE_SECONDS) -> Collected:
    """Find what may be removed, and with `delete` remove it.

    Args:
        grace: seconds that a thing must have been there. Writers of a mixdpo without leases are only kept safe by it.

    Raises:
        RegistryError: a log or a manifest cannot be read, so that nobody knows what it refers to; nothing is removed.
        TransientError: it took too long and stopped; what was removed stays removed, and running it again goes on.
    """
    found = Collected()
    references = _References(store)
    known, now = references.all(), time.time()
    loose: list[Stored] = []
    for each in (each for prefix in COLLECTED for each in store.list(prefix)):
        if not digests_in(each.key) <= known:
            (loose if now - each.modified >= grace else found.young).append(each)
    loose += [each for each in store.unfinished("") if now - each.modified >= grace]
    for start in range(0, len(loose), BATCH):
        _collect(store, references, loose[start : start + BATCH], grace, found, delete)
    return found


def _collect(
    store: Store, references: _References, batch: list[Stored], grace: float, found: Collected, delete: bool
) -> None:
    if not delete:
        leased = {digest for _, digests in notes(store, LEASES) for digest in digests}
        for each in batch:
            (found.leased if digests_in(each.key) & leased else found.garbage).append(each)
        return
    plan = leave_note(store, PLANS, _digests(batch))
    began = time.clock_gettime(_CLOCK)
    try:
        # This order, after the plan, is what makes it safe: leases, then logs.
        leased = _living(store, plan)
        known = references.all()
        doomed = []
        for each in batch:
            digests = digests_in(each.key)
            if digests & leased:
                found.leased.append(each)
            elif plan.modified - each.modified < grace:  # by the store's clock
                found.young.append(each)
            elif each.upload or not digests & known:
                doomed.append(each)

        def remove(each: Stored) -> None:
            if time.clock_gettime(_CLOCK) - began > PLAN_SECONDS / 2:
                raise TransientError(
                    f"collecting garbage in {store.location} took so long that it stopped, to be safe; run it again"
                )
            store.remove(each)

        in_parallel(remove, doomed)
        found.garbage.extend(doomed)
    finally:
        store.remove(plan)


def _living(store: Store, plan: Stored) -> set[str]:
    """What leases name; those that expired by the time of `plan` are revoked, which their writers will notice."""
    leased: set[str] = set()
    for lease, digests in notes(store, LEASES):
        if plan.modified - lease.modified > LEASE_SECONDS:
            store.remove(lease)
        else:
            leased |= digests
    for other, _ in notes(store, PLANS):
        if plan.modified - other.modified > PLAN_SECONDS:  # of a collection that was killed
            store.remove(other)
    return leased


class _References:
    """All digests that log entries and the manifests that they name hold, whatever they stand for there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ledger = Ledger(store)
        self._manifests: dict[str, set[str]] = {}

    def all(self) -> set[str]:
        found: set[str] = set()
        for name in self._ledger.names():
            state = self._ledger.state(name)
            for entry in state.entries:
                found |= digests_in(entry.to_bytes().decode())
            new = [digest for digest in state.versions if digest not in self._manifests]
            self._manifests.update(zip(new, in_parallel(self._read, new), strict=True))
        return found.union(*self._manifests.values())

    def _read(self, digest: str) -> set[str]:
        key = manifest_key(digest)
        try:
            body = self._store.read(key, LIMIT + 1)
        except FileNotFoundError:
            body = b""
        if hashlib.sha256(body).hexdigest() != digest:
            raise RegistryError(
                f"{key} of {self._store.location} is lost or was changed, so nobody knows which files its version has; "
                "nothing was removed: `mixdpo repair` puts it back"
            )
        return digests_in(body.decode())


def _digests(batch: Iterable[Stored]) -> set[str]:
    return {digest for each in batch for digest in digests_in(each.key)}
