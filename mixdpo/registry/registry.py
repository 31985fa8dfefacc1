"""The registry: immutable versions of a mixture, and aliases that move between them by a log that is only added to.

The protocol (docs/registry.md): blobs, then the manifest, then one log entry whose put-if-absent is the only commit.
Whoever is killed before that last step has published nothing; whoever loses it to another writer reads what the other
wrote and decides again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixdpo.errors import RegistryError
from mixdpo.progress import track
from mixdpo.registry.audit import Verified, audit
from mixdpo.registry.cache import BlobCache
from mixdpo.registry.decision import Decision, Ruling
from mixdpo.registry.fetch import REMEDY, check_blob, fetch, occupied, read_blob, read_manifest, same_files
from mixdpo.registry.lease import Lease
from mixdpo.registry.ledger import Ledger
from mixdpo.registry.location import Location, cache_directory, open_store
from mixdpo.registry.log import Change, Entry, State, change
from mixdpo.registry.manifest import Manifest, describe_files
from mixdpo.registry.publish import put_blobs, put_version
from mixdpo.registry.reference import Reference, find, parse_reference
from mixdpo.registry.repair import Repaired, repair
from mixdpo.registry.safety import plain_files
from mixdpo.registry.store import Store, blob_key
from mixdpo.registry.trust import Trust, sign, signed, signers

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

READABLE = 256 << 20  # bytes of a file that is read into memory


@dataclass(frozen=True)
class Version:
    """One version of a name, and what pointed to it when it was read."""

    name: str
    number: int  # from 1
    digest: str  # sha256 of the manifest: the version's identity
    manifest: Manifest
    aliases: tuple[str, ...]
    entry: Entry  # that made it a version: when, by whom, why
    written: Entry | None = field(default=None, compare=False)  # what the call that returned this added to the log

    @property
    def reference(self) -> str:
        return f"{self.name}@v{self.number}"

    @property
    def created(self) -> bool:
        """Whether the call that returned this made the version (False: the same was registered before)."""
        return self.written is not None and self.written.op == "register"


class Registry:
    """Versions kept at `location` (see `registry_location`), or in any `Store`.

    What `trust` and $MIXDPO_TRUSTED_KEYS ask of signatures holds wherever a version is fetched or an alias moves to it.
    """

    def __init__(self, location: Location | Store, trust: Trust | None = None) -> None:
        self.store: Store = open_store(location) if isinstance(location, Location) else location
        self._ledger = Ledger(self.store)
        self._trust = [each for each in (trust, Trust.of_environment()) if each is not None]

    def register(
        self,
        name: str,
        directory: Path,
        lineage: Mapping[str, Any],
        alias: str | None,
        reason: str,
        extra: Mapping[str, Path] | None = None,
        key: Ed25519PrivateKey | None = None,
    ) -> Version:
        """Publish the files below `directory`, and `extra` (path in the version → file), as a version of `name`.

        With `key`, its signature is there before the version is.

        The same policy of the same inputs is the same version (`Manifest.content`): no second one is made, though
        `alias` moves to it and blobs that were lost are put back.

        Raises:
            RegistryError: unsafe files, a name or alias that is none, an alias that only promotion moves, or no key
                where signatures are required.
            StorageError: no space, not writable. Nothing is published then.
        """
        for policy in self._trust:
            policy.check_signer(key)
        files = {**plain_files(directory), **(extra or {})}
        manifest = describe_files(name, files, lineage)
        first = change("register", manifest.digest, alias, reason, manifest.content)
        before = self._ledger.state(name)
        _refuse_guarded(before, alias)
        same = _same(before, manifest)

        def put() -> None:
            if same not in (None, manifest.digest):
                self._check_signed(name, same)
                kept = self._manifest(name, same).files
                again = {path: each for path, each in manifest.files.items() if kept.get(path) == each}
                put_blobs(self.store, again, files, f"comparing {name}")
                return
            put_version(self.store, manifest, files)
            if key is not None:
                sign(self.store, name, manifest.digest, key)

        def decide(state: State) -> Change | None:
            _refuse_guarded(state, alias)
            if (same := _same(state, manifest)) is None:
                return first
            return None if alias is None or state.target(alias) == same else change("alias", same, alias, reason)

        with Lease(self.store) as lease:
            if same is None:  # else the log keeps what it refers to
                lease.cover(manifest.digests)
            put()
            state, written = self._ledger.commit(name, decide)
            lease.settle(put)
        return self._version(state, _same(state, manifest) or manifest.digest, written)

    def resolve(self, reference: str) -> Version:
        """The version that a reference means. Raises RegistryError, which lists what there is, where none does."""
        parsed = parse_reference(reference)
        state = self._ledger.existing(parsed.name)
        return self._version(state, find(state, parsed))

    def pull(self, reference: str, target: Path) -> Path:
        """Put the files of a version at `target`, every byte verified; whole or not at all.

        Raises:
            RegistryError: no such version, a damaged one, or other files at `target` (which stay as they are).
            StorageError: no space, not writable.
        """
        version = self._usable(reference)
        target = target.absolute()
        fetched = not occupied(target) and fetch(self.store, version.manifest, target, self._cache())
        if not fetched and not (target.is_dir() and same_files(target, version.manifest, contents=True)):
            raise RegistryError(
                f"{target} exists and is not {version.reference}; choose a directory that does not exist, "
                "or remove this one"
            )
        return target

    def materialise(self, reference: str) -> Path:
        """A directory with the files of a version, read-only, in the user's cache; fetched and verified once."""
        version = self._usable(reference)
        target = cache_directory() / "versions" / version.digest
        if occupied(target) and not same_files(target, version.manifest, contents=False):
            shutil.rmtree(target)
        if not occupied(target):
            cache = self._cache()
            cache.put(version.digest, version.manifest.to_bytes())  # for `repair`
            fetch(self.store, version.manifest, target, cache, shared=True)
        return target

    def set_alias(self, name: str, alias: str, reference: str, reason: str) -> Version:
        """Point `alias` to a version of `name`: `reference` is a whole one or what follows the @ (`v3`)."""
        parsed = parse_reference(reference if reference.split("@")[0] == name else f"{name}@{reference}")

        def decide(state: State) -> Change | None:
            _refuse_guarded(state, alias)
            digest = find(state, parsed)
            return None if state.target(alias) == digest else change("alias", digest, alias, reason)

        return self._move(name, alias, decide)

    def promote(
        self, challenger: Version, alias: str, reason: str, judge: Callable[[Version | None], Ruling]
    ) -> Version:
        """Point `alias` to `challenger` if `judge` allows it against the champion that the alias then points to.

        Args:
            judge: what the rules say against a champion (None where the alias points nowhere), or an error where they
                refuse. It is asked again where another writer was quicker and the champion is another one by then.
        """
        self._check_signed(challenger.name, challenger.digest)  # before minutes are spent on it
        found: dict[str, bytes] = {}  # evidence by its digest

        def put() -> None:
            for digest, evidence in found.items():
                self.store.put_once(blob_key(digest), evidence, digest)

        with Lease(self.store) as lease:

            def decide(state: State) -> Change | None:
                champion = state.target(alias)
                if champion == challenger.digest:
                    return None
                decision, evidence = judge(None if champion is None else self._version(state, champion))
                if evidence is not None and decision.evidence is not None:
                    found[decision.evidence] = evidence
                    lease.cover(found)
                    put()
                return change("promote", challenger.digest, alias, reason, decision=decision)

            version = self._move(challenger.name, alias, decide)
            lease.settle(put)
        return version

    def read(self, version: Version, path: str, limit: int = READABLE) -> bytes:
        """One file of a version, verified, in memory.

        Raises:
            FileNotFoundError: the version has no such file.
            RegistryError: it is damaged, or has more than `limit` bytes.
        """
        if (content := version.manifest.files.get(path)) is None:
            raise FileNotFoundError(f"{version.reference} has no {path}")
        return read_blob(self.store, f"{version.reference}: {path}", content, limit)

    def evidence(self, decision: Decision) -> bytes | None:
        """All that a promotion was decided on, canonical JSON; None where it was forced without any."""
        if decision.evidence is None:
            return None
        key = blob_key(decision.evidence)
        try:
            body = self.store.read(key, READABLE + 1)
        except FileNotFoundError:
            raise RegistryError(f"evidence is lost: {self.store.location} has no {key}; {REMEDY}") from None
        if (found := hashlib.sha256(body).hexdigest()) != decision.evidence:
            raise RegistryError(f"evidence was changed: expected sha256 {decision.evidence}, got {found}; {REMEDY}")
        return body

    def sign(self, reference: str, key: Ed25519PrivateKey) -> tuple[Version, bool]:
        """Sign a version that is there, once all of it was read; and whether this key had not signed it before.

        Raises:
            RegistryError: a file of it is lost or changed.
        """
        version = self.resolve(reference)
        for path, content in track(sorted(version.manifest.files.items()), f"reading {version.reference}"):
            check_blob(self.store, path, content)
        return version, sign(self.store, version.name, version.digest, key)

    def signers(self, version: Version) -> dict[str, str]:
        """Who signed a version: public key → "trusted"; id of any other key → "not verified".

        Raises:
            RegistryError: what a trusted key is said to have signed is false.
        """
        trusted = {key: key_of for policy in self._trust for key, key_of in policy.ids().items()}
        others = [each for each in signers(self.store, version.digest) if each not in trusted.values()]
        own = [key for key in trusted if signed(self.store, version.name, version.digest, key)]
        return {**dict.fromkeys(own, "trusted"), **dict.fromkeys(others, "not verified")}

    def rollback(self, name: str, alias: str, reason: str) -> Version:
        """Point `alias` back to what it pointed to before, as a new entry; a second time goes back further."""

        def decide(state: State) -> Change | None:
            find(state, Reference(name, alias=alias))
            stack = state.aliases[alias]
            if len(stack) < 2:
                raise RegistryError(
                    f"{name}@{alias} has nothing to go back to: before v{state.number(stack[0])} it pointed nowhere; "
                    "promote another version instead"
                )
            return change("rollback", stack[-2], alias, reason)

        return self._move(name, alias, decide)

    def names(self) -> list[str]:
        return self._ledger.names()

    def list(self, name: str | None = None) -> list[Version]:
        """All versions, oldest first: of one name, or of every name in order."""
        states = [self._ledger.existing(each) for each in (self.names() if name is None else [name])]
        return [self._version(state, digest) for state in states for digest in state.versions]

    def history(self, name: str) -> State:
        """What the log of `name` says; its `entries` are all that happened, in order."""
        return self._ledger.existing(name)

    def verify(self, name: str) -> Verified:
        """Read all that the log of `name` refers to again: entries, manifests and every byte of every blob.

        Raises:
            RegistryError: a line for each thing that is lost or changed.
        """
        found = audit(self.store, self._ledger.reread(name))
        if found.damage:
            lines = "\n".join(f"  {each.message}" for each in found.damage)
            raise RegistryError(f"{name} in {self.store.location} is damaged:\n{lines}")
        return found

    def repair(self, name: str, places: Iterable[Path]) -> Repaired:
        """Put back what `verify` finds lost or changed, from the cache and from copies below `places`."""
        cache = cache_directory()
        return repair(self.store, self._ledger.reread(name), [*places, *([cache] if cache.is_dir() else [])])

    def _cache(self) -> BlobCache:
        return BlobCache(cache_directory() / "blobs")

    def _usable(self, reference: str) -> Version:
        """What `resolve` finds, signed as is asked for."""
        version = self.resolve(reference)
        self._check_signed(version.name, version.digest)
        return version

    def _check_signed(self, name: str, manifest: str) -> None:
        for policy in self._trust:
            policy.check(self.store, name, manifest)

    def _move(self, name: str, alias: str, decide: Callable[[State], Change | None]) -> Version:
        def signed(state: State) -> Change | None:
            if (change := decide(state)) is not None:
                self._check_signed(name, change.manifest)
            return change

        self._ledger.existing(name)
        state, written = self._ledger.commit(name, signed)
        return self._version(state, state.aliases[alias][-1], written)

    def _version(self, state: State, digest: str, written: Entry | None = None) -> Version:
        entry = next(entry for entry in state.entries if entry.op == "register" and entry.manifest == digest)
        manifest = self._manifest(state.name, digest)
        return Version(state.name, state.number(digest), digest, manifest, state.aliases_of(digest), entry, written)

    def _manifest(self, name: str, digest: str) -> Manifest:
        return read_manifest(self.store, name, digest)


def _same(state: State, manifest: Manifest) -> str | None:
    """The version that `manifest` is: by its digest, or made of the same by another run."""
    return manifest.digest if manifest.digest in state.versions else state.same_as(manifest.content)


def _refuse_guarded(state: State, alias: str | None) -> None:
    if alias is not None and state.guarded(alias):
        raise RegistryError(
            f"{state.name}@{alias} was promoted by rules, so nothing else moves it: use `mixdpo promote` (--force "
            "overrides the rules) or `mixdpo rollback`, or name another alias"
        )
