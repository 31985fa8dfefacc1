"""Files out of a registry: every byte is checked before its directory appears under its name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from mixdpo.errors import RegistryError, StorageError
from mixdpo.files import file_digest, storage_errors
from mixdpo.progress import track
from mixdpo.registry.manifest import Content, Manifest
from mixdpo.registry.safety import check_content, check_paths
from mixdpo.registry.store import CHUNK, Store, blob_key

REMEDY = "restore that blob from a copy, or delete it and register the same files again, which puts it back"


def fetch(store: Store, manifest: Manifest, target: Path, mode: int = 0o666) -> bool:
    """Put the files of `manifest` at `target`, whole or not at all; `mode` (less the umask) is theirs.

    Returns:
        False where a directory with files was at `target` already (another process may have been quicker); it stays.

    Raises:
        RegistryError: a blob is absent or not what the manifest says. StorageError: no space, not writable.
    """
    check_paths(manifest.files)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    with storage_errors(target):
        temporary.mkdir(parents=True)
        try:
            if (free := shutil.disk_usage(temporary).free) < manifest.size:
                raise StorageError(
                    f"{target} needs {manifest.size / 2**20:.0f} MiB, but its disk has {free / 2**20:.0f} MiB free; "
                    "make room or choose another disk"
                )
            for path, content in track(sorted(manifest.files.items()), f"fetching {manifest.name}"):
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                _copy(store, path, content, temporary / path, mode)
                check_content(path, temporary / path)
            try:
                # replaces an empty directory, never one with files
                os.rename(temporary, target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return False
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return True


def check_blob(store: Store, path: str, content: Content) -> None:
    """Read the blob of one file and compare it with the manifest. Raises RegistryError where they differ."""
    for _ in _verified(store, path, content):
        pass


def read_blob(store: Store, path: str, content: Content, limit: int) -> bytes:
    """One file in memory, verified. Raises RegistryError where it has more than `limit` bytes, or is not as it was."""
    if content.size > limit:
        raise RegistryError(f"{path} has {content.size} bytes, expected at most {limit} in such a file; it is not read")
    return b"".join(_verified(store, path, content))


def same_files(directory: Path, manifest: Manifest, contents: bool) -> bool:
    """Whether `directory` holds exactly the files of `manifest`: by name and size, or also every byte (`contents`)."""
    found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if not path.is_dir()}
    return found.keys() == manifest.files.keys() and all(
        path.is_file()
        and path.stat().st_size == manifest.files[name].size
        and (not contents or file_digest(path) == manifest.files[name].sha256)
        for name, path in found.items()
    )


def _copy(store: Store, path: str, content: Content, to: Path, mode: int) -> None:
    with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        for chunk in _verified(store, path, content):
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())


def _verified(store: Store, path: str, content: Content) -> Iterator[bytes]:
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
