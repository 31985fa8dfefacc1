"""What a registry needs of the place that keeps it: to put what is not there yet, to read, to list, to tidy up.

A key is a relative POSIX path ("blobs/sha256/ab12…"). Once a key is there, its bytes stay as they are: nothing is ever
put over something else. `FileStore` is a directory, `S3Store` a bucket; both keep the laws of
tests/registry/test_store_laws.py.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mixdpo.errors import RegistryError

CHUNK = 1 << 20  # bytes read and written at once

Sent = Callable[[int], object]  # is told of each number of bytes that arrived, from any thread


def unwatched(_: int) -> None:
    """A `Sent` for when nobody watches."""


@dataclass(frozen=True, order=True)
class Stored:
    key: str
    size: int  # bytes
    modified: float  # seconds since 1970 by the store's own clock
    upload: str = ""  # what the store calls a `key` whose bytes have not all arrived; empty once it is whole


class Store(Protocol):
    @property
    def location(self) -> str:
        """Where it is, for messages."""

    def put_once(self, key: str, content: bytes | Path, sha256: str, sent: Sent = unwatched) -> bool:
        """Put `content` (bytes, or a file to stream) at `key`, whole and durable, unless `key` is taken.

        Of any number of concurrent calls for one key exactly one returns True. False: `key` was there before and
        stays as it was; compare its bytes where it matters, since a lost reply may answer one's own earlier write.

        Raises:
            RegistryError: `content` does not have the digest `sha256`; nothing was put.
            StorageError: no space, not writable. TransientError: the store does not answer.
        """

    def holds(self, key: str, content: bytes | Path, sha256: str) -> bool:
        """Whether `key` has the bytes `content` with the digest `sha256`, as the store's own digest or a reading tells.

        Raises FileNotFoundError where `key` is absent.
        """

    def read(self, key: str, limit: int) -> bytes:
        """The first `limit` bytes at `key`: ask for one more than is allowed to see that there are more.

        Raises FileNotFoundError where there are none.
        """

    def open(self, key: str) -> BinaryIO:
        """The bytes at `key` as a stream. Raises FileNotFoundError where there are none."""

    def size(self, key: str) -> int:
        """How many bytes are at `key`. Raises FileNotFoundError where it is absent."""

    def exists(self, key: str) -> bool: ...

    def unfinished(self, prefix: str) -> list[Stored]:
        """What has arrived in part below `prefix`: running puts, and those whose writer was killed."""

    def list(self, prefix: str, after: str = "") -> list[Stored]:
        """All that is whole below keys that start with `prefix` and sort after `after`, sorted.

        A key put during the call may be missing while a later one is listed.
        """

    def remove(self, stored: Stored) -> None:
        """Remove what `list` or `unfinished` told of; nothing happens where it is gone. For maintenance alone."""


def chunks(content: bytes | Path, size: int = CHUNK) -> Iterator[bytes]:
    """`content` in pieces of `size` bytes, the last one shorter; a link in place of a file is an OSError."""
    if isinstance(content, bytes):
        yield from (content[start : start + size] for start in range(0, len(content), size))
        return
    with os.fdopen(os.open(content, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
        while chunk := source.read(size):
            yield chunk


def check_digest(key: str, content: bytes | Path, expected: str, got: str) -> None:
    """Raise RegistryError where what was read for `key` is not what was hashed before."""
    if got != expected:
        raise RegistryError(
            f"{content if isinstance(content, Path) else key} changed while it was being published: expected "
            f"sha256 {expected}, got {got}; let what writes it finish, then register again"
        )


def stream_digest(stream: BinaryIO) -> str:
    """sha256 (hex) of all that is left in `stream`."""
    hasher = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        hasher.update(chunk)
    return hasher.hexdigest()


def blob_key(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"


def manifest_key(sha256: str) -> str:
    return f"manifests/sha256/{sha256}.json"


def signature_key(manifest: str, key: str) -> str:
    """Where the signature of the key with this id is; all of a manifest's, with no id."""
    return f"signatures/sha256/{manifest}/" + (f"{key}.json" if key else "")


def entry_key(name: str, seq: int) -> str:
    return f"log/{name}/{seq:010d}.json"
