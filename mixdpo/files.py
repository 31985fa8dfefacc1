"""Writing files so that a reader sees the whole of one or none of it, and canonical JSON."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixdpo.errors import DataError, StorageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file or directory to; on success it takes `path`'s place.

    On any error the old `path` stays as it was and the half-written one is removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if path.is_dir() and temporary.is_dir():
                # rename(2) does not replace a directory that is not empty: step aside first
                old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
                os.rename(path, old)
                os.rename(temporary, path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, met while writing `path`, into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left while writing {path}: its earlier version is untouched; "
                f"free space on that disk ({_free(path)} left) and run the command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise StorageError(f"cannot write {path}: {error.strerror}; make the directory writable") from error
        raise


def _free(path: Path) -> str:
    while not path.exists():
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**20:.0f} MiB"


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Readable JSON with sorted keys; NaN and infinities are refused (no other tool reads them)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; run the stage that writes it first (`dvc repro` runs all)")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}); delete it and run the stage that writes it again") from error


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: sorted keys, no spaces, UTF-8. What digests are taken of."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def directory_digest(path: Path, pattern: str = "*") -> str:
    """sha256 (hex) over the names and contents of all files below `path` whose name matches `pattern`."""
    path = Path(path)
    names = sorted(str(file.relative_to(path)) for file in path.rglob(pattern) if file.is_file())
    return digest({name: file_digest(path / name) for name in names})


def code_digests(*parts: str) -> dict[str, str]:
    """sha256 (hex) of the source of parts of this package, such as "policy": what a checkpoint's key holds."""
    package = Path(__file__).parent
    return {part: directory_digest(package / part, "*.py") for part in parts}
