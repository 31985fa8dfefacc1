"""Reading and adding to the logs of a store. The put-if-absent of one entry is the registry's only commit."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from mixdpo.errors import RegistryError
from mixdpo.registry.log import LIMIT, SCHEMA, Change, Entry, State, extend
from mixdpo.registry.manifest import NAME
from mixdpo.registry.parallel import in_parallel
from mixdpo.registry.store import Store, entry_key

_ENTRY = re.compile(r"[0-9]{10}\.json")


class Ledger:
    """The logs of all names. What was read once is kept and only continued: a log grows and never changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._states: dict[str, State] = {}

    def names(self) -> list[str]:
        return sorted({stored.key.split("/")[1] for stored in self._store.list("log/")})

    def state(self, name: str) -> State:
        """What the log of `name` says now; nothing yet where there is no log.

        Raises:
            RegistryError: `name` cannot be one, or its log is broken (names the entry).
        """
        if not re.fullmatch(NAME, name):
            raise RegistryError(
                f"{name!r} is no name for versions; expected small letters, digits and -, as in reviews"
            )
        known = self._states.get(name, State(name))
        # Only the last number is taken from the listing: entries put while it is made may be missing in between. It
        # begins with the last entry that was read before, so that a log that lost it is noticed.
        before = entry_key(name, len(known.entries) - 1) if known.entries else ""
        files = (stored.key.rpartition("/")[2] for stored in self._store.list(f"log/{name}/", after=before))
        last = max((int(file[:10]) for file in files if _ENTRY.fullmatch(file)), default=0)
        if last < len(known.entries):
            raise RegistryError(
                f"the log of {name} in {self._store.location} has lost entry {len(known.entries)}, which was read "
                f"before; restore log/{name}/ from a copy"
            )
        state = extend(known, in_parallel(partial(self._read, name), range(len(known.entries) + 1, last + 1)))
        self._states[name] = state
        return state

    def existing(self, name: str) -> State:
        """`state`, of a name that has a version. Raises RegistryError, which lists the names, for any other."""
        state = self.state(name)
        if not state.versions:
            raise RegistryError(
                f"nothing is registered as {name} in {self._store.location}, which has "
                f"{', '.join(self.names()) or 'no versions at all'}; register it, or name another registry "
                "($MIXDPO_REGISTRY, registry.url)"
            )
        return state

    def reread(self, name: str) -> State:
        """`existing`, from the first entry on, whatever was read before."""
        self._states.pop(name, None)
        return self.existing(name)

    def commit(self, name: str, decide: Callable[[State], Change | None]) -> tuple[State, Entry | None]:
        """Add the entry that `decide` makes of what the log says; where it returns None, nothing.

        `decide` is asked again after each loss of the next number to another writer, with what that one wrote.
        Each loss is another's success, so writers never hold each other up for good.
        """
        while True:
            state = self.state(name)
            change = decide(state)
            if change is None:
                return state, None
            entry = Entry.model_validate(
                {
                    **change.model_dump(),
                    "schema": SCHEMA,
                    "seq": len(state.entries) + 1,
                    "prev": state.head,
                    "by": _who(),
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "nonce": uuid.uuid4().hex,
                }
            )
            body, key = entry.to_bytes(), entry_key(name, entry.seq)
            put = self._store.put_once(key, body, hashlib.sha256(body).hexdigest())
            # where the reply to one's own put was lost and the put repeated, the number is taken, by oneself
            if put or self._store.read(key, LIMIT + 1) == body:
                after = self._states[name] = extend(state, [body])
                return after, entry

    def _read(self, name: str, seq: int) -> bytes:
        key = entry_key(name, seq)
        try:
            return self._store.read(key, LIMIT + 1)
        except FileNotFoundError:
            raise RegistryError(
                f"the log of {name} is broken: {key} is absent from {self._store.location} though later entries are "
                f"there; restore log/{name}/ from a copy"
            ) from None


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
