"""Files into a registry: all that a log entry will refer to is there, whole, before the entry is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mixdpo.errors import RegistryError
from mixdpo.progress import measure
from mixdpo.registry.fetch import check_blob, read_manifest
from mixdpo.registry.manifest import LIMIT, Content, Manifest
from mixdpo.registry.parallel import in_parallel
from mixdpo.registry.store import Sent, Store, blob_key, manifest_key, unwatched


def put_version(store: Store, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Put blobs and manifest, the manifest last.

    Args:
        files: path in the version → file on disk, for each that the manifest names.

    Raises:
        RegistryError: a file changed since it was described, or what is in its place already is damaged.
    """
    body = manifest.to_bytes()
    if len(body) > LIMIT:
        raise RegistryError(
            f"the manifest of {manifest.name} has {len(body)} bytes, expected at most {LIMIT}; shorten its lineage"
        )
    put_blobs(store, manifest.files, files, f"publishing {manifest.name}")
    key = manifest_key(manifest.digest)
    _ensure(store, key, body, manifest.digest, unwatched, lambda: read_manifest(store, manifest.name, manifest.digest))


def put_blobs(store: Store, contents: Mapping[str, Content], files: Mapping[str, Path], what: str) -> None:
    """Put the blobs of these paths side by side, equal ones once; those that are there already are compared."""
    distinct = {content: path for path, content in sorted(contents.items(), reverse=True)}
    with measure(what, sum(content.size for content in distinct)) as moved:

        def put(content: Content) -> None:
            path, key = distinct[content], blob_key(content.sha256)
            _ensure(store, key, files[path], content.sha256, moved, lambda: check_blob(store, path, content))

        in_parallel(put, sorted(distinct, key=lambda content: -content.size))


def _ensure(
    store: Store, key: str, content: bytes | Path, sha256: str, moved: Sent, complain: Callable[[], object]
) -> None:
    """Have `content` at `key`; `complain` raises, and says how what is there differs."""
    while not store.put_once(key, content, sha256, moved):
        try:
            if not store.holds(key, content, sha256):
                complain()
        except FileNotFoundError:  # a collection took this writer for dead: it was there, and is not any more
            continue
        moved(len(content) if isinstance(content, bytes) else content.stat().st_size)
        return
