"""What a registry needs of the place that keeps it: five operations, none of which changes what is there.

A key is a relative POSIX path ("blobs/sha256/ab12…"). Once a key is there, its bytes stay as they are: a store has
no overwrite and no delete. `FileStore` is the directory; another store (S3) is another class of this shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Protocol


class Store(Protocol):
    @property
    def location(self) -> str:
        """Where it is, for messages."""

    def put_once(self, key: str, content: bytes | Path, sha256: str) -> bool:
        """Put `content` (bytes, or a file to stream) at `key`, whole and durable, unless `key` is taken.

        Of any number of concurrent calls for one key exactly one returns True. False: `key` was there before and
        stays as it was; compare its bytes where it matters, since a lost reply may answer one's own earlier write.

        Raises:
            RegistryError: `content` does not have the digest `sha256`; nothing was put.
            StorageError: no space, not writable.
        """

    def open(self, key: str) -> BinaryIO:
        """The bytes at `key` as a stream. Raises FileNotFoundError where there are none."""

    def size(self, key: str) -> int:
        """How many bytes are at `key`. Raises FileNotFoundError where it is absent."""

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str) -> list[str]:
        """All keys that start with `prefix`, sorted.

        A key put during the call may be missing while a later one is listed.
        """


def get(store: Store, key: str, limit: int) -> bytes:
    """The bytes at `key`, at most `limit` of them and one more (so that the caller sees that there were more)."""
    with store.open(key) as stream:
        return stream.read(limit + 1)


def blob_key(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"


def manifest_key(sha256: str) -> str:
    return f"manifests/sha256/{sha256}.json"


def signature_key(manifest: str, key: str) -> str:
    """Where the signature of the key with this id is; all of a manifest's, with no id."""
    return f"signatures/sha256/{manifest}/" + (f"{key}.json" if key else "")


def entry_key(name: str, seq: int) -> str:
    return f"log/{name}/{seq:010d}.json"
