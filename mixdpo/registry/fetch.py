"""Files out of a registry: every byte is checked before its directory appears under its name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from mixdpo.errors import RegistryError, StorageError
from mixdpo.files import file_digest, storage_errors
from mixdpo.progress import measure
from mixdpo.registry.cache import BlobCache
from mixdpo.registry.manifest import LIMIT, Content, Manifest, parse_manifest
from mixdpo.registry.parallel import in_parallel
from mixdpo.registry.safety import check_content, check_paths
from mixdpo.registry.staging import staging
from mixdpo.registry.store import CHUNK, Store, blob_key, manifest_key

REMEDY = "`mixdpo repair NAME --from DIRECTORY` puts it back from a copy, such as the directory that was registered"


def fetch(store: Store, manifest: Manifest, target: Path, cache: BlobCache, shared: bool = False) -> bool:
    """Put the files of `manifest` at `target`, whole or not at all. Those that an interrupted call left are kept.

    Args:
        cache: blobs that are here already, which are not asked of the store.
        shared: the files are read-only and may be the cache's own, which gets those that were missing there.

    Returns:
        False where a directory with files was at `target` already (another process may have been quicker); it stays.

    Raises:
        RegistryError: a blob is absent or not what the manifest says. StorageError: no space, not writable.
        TransientError: the store does not answer; what arrived is kept for the next call.
    """
    check_paths(manifest.files)
    places: dict[Content, list[str]] = {}
    for path, content in sorted(manifest.files.items()):
        places.setdefault(content, []).append(path)
    with storage_errors(target), staging(target, manifest.digest) as files:
        if occupied(target):
            return False
        missing = manifest.size - sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
        if (free := shutil.disk_usage(files).free) < missing:
            raise StorageError(
                f"{target} needs {missing / 2**20:.0f} MiB, but its disk has {free / 2**20:.0f} MiB free; "
                "make room or choose another disk"
            )
        with measure(f"fetching {manifest.name}", manifest.size) as moved:
            obtain = _Obtain(store, cache, shared, files, moved)
            in_parallel(lambda each: obtain(*each), sorted(places.items(), key=lambda each: -each[0].size))
        try:
            os.rename(files, target)  # replaces an empty directory, never one with files
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
    return True


class _Obtain:
    """Puts one blob at all its paths below `files`: from what is there, from the cache, or from the store."""

    def __init__(
        self, store: Store, cache: BlobCache, shared: bool, files: Path, moved: Callable[[int], object]
    ) -> None:
        self._store, self._cache, self._shared = store, cache, shared
        self._files, self._moved = files, moved

    def __call__(self, content: Content, paths: list[str]) -> None:
        for path in paths:
            to = self._files / path
            to.parent.mkdir(parents=True, exist_ok=True)
            if to.is_file() and not to.is_symlink() and file_digest(to) == content.sha256:
                self._moved(content.size)
                continue
            temporary = to.with_name(f".{to.name}.{uuid.uuid4().hex[:8]}.part")
            try:
                self._one(path, content, temporary)
                check_content(path, temporary)
                os.replace(temporary, to)
            finally:
                temporary.unlink(missing_ok=True)

    def _one(self, path: str, content: Content, to: Path) -> None:
        if self._shared and self._cache.link(content.sha256, to):
            self._moved(content.size)
            return
        if not self._cache.copy(content.sha256, to, self._moved):
            try:
                self._download(path, content, to)
            except RegistryError:  # what arrives damaged may have been so on the way only
                to.unlink(missing_ok=True)
                self._download(path, content, to)
        if self._shared:
            to.chmod(0o444)
            self._cache.keep(content.sha256, to)

    def _download(self, path: str, content: Content, to: Path) -> None:
        with to.open("xb") as out:
            for chunk in verified(self._store, path, content):
                out.write(chunk)
                self._moved(len(chunk))
            out.flush()
            os.fsync(out.fileno())


def read_manifest(store: Store, name: str, digest: str) -> Manifest:
    """The manifest of a version of `name`. Raises RegistryError where it is lost, was changed, or is of another."""
    key = manifest_key(digest)
    origin = f"{key} of {store.location}"
    try:
        manifest = parse_manifest(store.read(key, LIMIT + 1), digest, origin)
    except FileNotFoundError:
        raise RegistryError(f"{origin} is lost; {REMEDY}") from None
    if manifest.name != name:
        raise RegistryError(f"{origin} is of {manifest.name}, expected of {name}; restore log/{name}/ from a copy")
    return manifest


def check_blob(store: Store, path: str, content: Content) -> None:
    """Read the blob of one file and compare it with the manifest. Raises RegistryError where they differ."""
    for _ in verified(store, path, content):
        pass


def read_blob(store: Store, path: str, content: Content, limit: int) -> bytes:
    """One file in memory, verified. Raises RegistryError where it has more than `limit` bytes, or is not as it was."""
    if content.size > limit:
        raise RegistryError(f"{path} has {content.size} bytes, expected at most {limit} in such a file; it is not read")
    return b"".join(verified(store, path, content))


def occupied(path: Path) -> bool:
    """Whether something is at `path` that a fetched directory must not replace (an empty directory may be)."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def same_files(directory: Path, manifest: Manifest, contents: bool) -> bool:
    """Whether `directory` holds exactly the files of `manifest`: by name and size, or also every byte (`contents`)."""
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if not path.is_dir()}
    return found.keys() == manifest.files.keys() and all(
        path.is_file()
        and path.stat().st_size == manifest.files[name].size
        and (not contents or file_digest(path) == manifest.files[name].sha256)
        for name, path in found.items()
    )


def verified(store: Store, path: str, content: Content) -> Iterator[bytes]:
    """The bytes of a blob, never more than the manifest says; the end is reached only if they are what it says."""
    key = blob_key(content.sha256)
    hasher, size = hashlib.sha256(), 0
    try:
        stored = store.size(key)
        if stored == content.size:  # else not worth reading
            with store.open(key) as stream:
                while size < content.size and (chunk := stream.read(min(CHUNK, content.size - size))):
                    size += len(chunk)
                    hasher.update(chunk)
                    yield chunk
    except FileNotFoundError:
        raise RegistryError(f"{path} is lost: {store.location} has no {key}; {REMEDY}") from None
    if stored != content.size or size != content.size:
        fault = f"expected {content.size} bytes, got {stored if stored != content.size else size}"
    elif hasher.hexdigest() != content.sha256:
        fault = f"expected sha256 {content.sha256}, got {hasher.hexdigest()}"
    else:
        return
    raise RegistryError(f"{path} was changed: {fault} in {key} of {store.location}; {REMEDY}")
