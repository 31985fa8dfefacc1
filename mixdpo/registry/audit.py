"""Everything that a log refers to, read again: what of it is lost or was changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mixdpo.errors import RegistryError
from mixdpo.progress import measure
from mixdpo.registry.fetch import REMEDY, check_blob, read_manifest
from mixdpo.registry.log import State
from mixdpo.registry.manifest import Content
from mixdpo.registry.parallel import in_parallel
from mixdpo.registry.store import CHUNK, Store, blob_key, manifest_key


@dataclass(frozen=True)
class Damage:
    key: str
    sha256: str  # what should be there
    size: int | None  # bytes of it; None where only the lost thing itself would tell
    message: str


@dataclass(frozen=True)
class Verified:
    """What was read."""

    entries: int
    versions: int
    blobs: int
    size: int  # bytes of the blobs
    damage: list[Damage]


def audit(store: Store, state: State) -> Verified:
    """Read manifests and every byte of every blob that a log refers to; equal blobs once."""
    damage: list[Damage] = []
    blobs: dict[Content, str] = {}  # → the first path that has it
    for number, digest in enumerate(state.versions, start=1):
        try:
            for path, content in read_manifest(store, state.name, digest).files.items():
                blobs.setdefault(content, f"v{number}: {path}")
        except RegistryError as error:
            damage.append(Damage(manifest_key(digest), digest, None, f"v{number}: {error}"))
    size = sum(content.size for content in blobs)
    with measure(f"verifying {state.name}", size) as moved:

        def look(blob: tuple[Content, str]) -> Damage | None:
            content, path = blob
            try:
                check_blob(store, path, content)
            except RegistryError as error:
                return Damage(blob_key(content.sha256), content.sha256, content.size, str(error))
            finally:
                moved(content.size)
            return None

        found = in_parallel(look, sorted(blobs.items(), key=lambda blob: blob[1]))
    evidence = {(entry.seq, digest) for entry in state.entries for digest in entry.blobs}
    found += in_parallel(lambda each: _look_at_evidence(store, *each), sorted(evidence))
    damage += [each for each in found if each is not None]
    return Verified(len(state.entries), len(state.versions), len(blobs), size, damage)


def _look_at_evidence(store: Store, seq: int, sha256: str) -> Damage | None:
    key, hasher = blob_key(sha256), hashlib.sha256()
    try:
        with store.open(key) as stream:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
        fault = f"was changed: expected sha256 {sha256}, got {hasher.hexdigest()} in {key}"
    except FileNotFoundError:
        fault = f"is lost: there is no {key}"
    if hasher.hexdigest() == sha256:
        return None
    return Damage(key, sha256, None, f"evidence of entry {seq} {fault} of {store.location}; {REMEDY}")
