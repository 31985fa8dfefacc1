"""Whether a bucket keeps what was put first, on which all rests: asked of the bucket itself, before any write."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from mixdpo.errors import StorageError
from mixdpo.registry.s3_location import S3Location

KEY = "probe/conditional-writes"
BODY = b"mixdpo puts this twice: the second time must be refused.\n"

_kept: set[tuple[str, S3Location]] = set()  # (endpoint, location) that passed, for as long as this process lives
_asking = threading.Lock()


def check_conditional_writes(endpoint: str, where: S3Location, put: Callable[[str, bytes, str], bool]) -> None:
    """Refuse a store that lets a second conditional put of a key take the place of the first.

    Asked once a process, in the same bucket and below the same prefix, since a bucket's settings change the answer
    (Ceph 16 keeps the condition, but not where versions are on). The probe's key stays, so that the next process is
    answered by its first put.

    Args:
        put: (key, body, its sha256) → whether it was put; a conditional put of the store.

    Raises:
        StorageError: the store ignores the condition, or cannot be written at all.
    """
    with _asking:
        if (endpoint, where) in _kept:
            return
        digest = hashlib.sha256(BODY).hexdigest()
        if put(KEY, BODY, digest) and put(KEY, BODY, digest):
            raise StorageError(
                f"{where} at {endpoint} has no conditional writes: it took a second put with If-None-Match: * of the "
                "same key, so two writers could take the same place in the log and one would be lost. Nothing was "
                "registered. Use a store that refuses it (AWS S3, SeaweedFS 4.48, recent MinIO or Ceph), or a directory"
            )
        _kept.add((endpoint, where))
