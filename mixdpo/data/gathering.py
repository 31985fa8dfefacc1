"""What is new in the landing place: fetched, compared with itself, and read as params.yaml reads it."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mixdpo.config import Params
from mixdpo.config.data import ARRIVALS, Arrivals, FilesSource, PreferenceFiles
from mixdpo.data import ready, sources
from mixdpo.data.batches import NAMED, Arrival, batch_directory
from mixdpo.data.landing import Digests
from mixdpo.data.tables import SUFFIXES
from mixdpo.errors import DataError, StorageError
from mixdpo.files import storage_errors
from mixdpo.registry.store import CHUNK, Store, Stored

NAME = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.=-]*/)*[A-Za-z0-9_][A-Za-z0-9_.=-]*")

OnBad = Callable[[Path, PurePosixPath, "Left"], None]  # a bad file, its name below a batch, and why


@dataclass(frozen=True)
class Left:
    """A file that was not taken, and why."""

    source: str  # its name in the landing place
    reason: str
    bad: bool  # it will not get better by itself: it cannot be read as params.yaml says


@dataclass(frozen=True)
class Fetched:
    """A copy of a landed file, by itself in a directory that is laid out like `inputs`."""

    stored: Stored
    sha256: str
    root: Path
    path: Path

    @property
    def identity(self) -> tuple[str, str]:
        return str(PurePosixPath(self.stored.key).parent), self.sha256


class Gathering:
    """One look at a landing place, which puts what is new together as batch `number` below `staging`.

    Args:
        seen: what makes files the same (`Arrival.identity`) of those that were taken before.
        digests: what was read before; it is added to.
        on_bad: is told of each file that cannot be read as params.yaml says.
    """

    def __init__(
        self, params: Params, staging: Path, number: int, seen: set[tuple[str, str]], digests: Digests, on_bad: OnBad
    ) -> None:
        self.files: list[Arrival] = []
        self.left: list[Left] = []
        self.known = 0  # files that were taken before
        self._params, self._staging, self._number = params, staging, number
        self._seen, self._digests, self._on_bad = seen, digests, on_bad

    def run(self, store: Store, settings: Arrivals, now: float) -> None:
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=self._staging) as place:
            fetched = [*self._fetch(store, self._ready(store.list(""), settings, now), Path(place))]
            unchanged = set(store.list("")) if fetched else set()
            for each in fetched:
                if each.stored not in unchanged:
                    self._leave(each.stored, "it changed while it was read: it is looked at again by the next run")
                else:
                    self._digests.put(each.stored, each.sha256)
                    self._judge(each)

    def _leave(self, stored: Stored, reason: str) -> None:
        self.left.append(Left(stored.key, reason, bad=False))

    def _ready(self, landed: Iterable[Stored], settings: Arrivals, now: float) -> Iterable[Stored]:
        """Those that may be whole and were not read before."""
        for stored in landed:
            if reason := _not_yet(stored, settings, now):
                self._leave(stored, reason)
            elif (str(PurePosixPath(stored.key).parent), self._digests.get(stored)) in self._seen:
                self.known += 1
            else:
                yield stored

    def _fetch(self, store: Store, landed: Iterable[Stored], place: Path) -> Iterable[Fetched]:
        for number, stored in enumerate(landed):
            root = place / str(number)
            root.mkdir()
            try:
                sha256 = _copy(store, stored, root / "copy")
            except DataError as error:
                self._leave(stored, str(error))
                continue
            key = PurePosixPath(stored.key)
            path = batch_directory(root, self._number) / key.parent / f"{sha256[:NAMED]}{key.suffix}"
            path.parent.mkdir(parents=True)
            os.rename(root / "copy", path)
            yield Fetched(stored, sha256, root, path)

    def _judge(self, fetched: Fetched) -> None:
        """Put a file into the batch if it is new and can be read."""
        if fetched.identity in self._seen:
            self.known += 1
            return
        source, path = fetched.stored.key, fetched.path
        file = PurePosixPath(source).parent / path.name
        try:
            rows = _rows(self._params, fetched.root, path)
        except DataError as error:
            reason = str(error).replace(str(path), source).replace(path.name, PurePosixPath(source).name)
            self.left.append(Left(source, reason, bad=True))
            self._on_bad(path, file, self.left[-1])
            return
        self._seen.add(fetched.identity)
        final = batch_directory(self._staging, self._number) / file
        final.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, final)
        size = fetched.stored.size
        self.files.append(Arrival(source=source, file=str(file), sha256=fetched.sha256, bytes=size, rows=rows))


def _not_yet(stored: Stored, settings: Arrivals, now: float) -> str | None:
    """Why a file is not even looked into, if so."""
    if not NAME.fullmatch(stored.key) or "/" not in stored.key:
        return "expected a file in a directory, both named with letters, digits, _ . = and - (books/week-3.csv)"
    if PurePosixPath(stored.key).suffix not in SUFFIXES:
        return f"it is none of {', '.join(SUFFIXES)}"
    if (age := now - stored.modified) < settings.settle_seconds:
        return (
            f"it was written {max(age, 0):.0f} s ago, so it may not be whole yet; files are taken after "
            f"{settings.settle_seconds:g} s (arrivals.settle_seconds)"
        )
    return None


def _copy(store: Store, stored: Stored, copy: Path) -> str:
    """Copy a landed file; its sha256. Raises DataError where it went, or may not be read."""
    hasher = hashlib.sha256()
    try:
        with _opened(store, stored.key) as stream, storage_errors(copy), copy.open("wb") as out:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    except FileNotFoundError:
        raise DataError("it went while it was read") from None
    if copy.stat().st_size != stored.size:
        raise DataError("it changed while it was read: it is looked at again by the next run")
    return hasher.hexdigest()


def _opened(store: Store, key: str) -> BinaryIO:
    try:
        return store.open(key)
    except StorageError as error:  # the place could be listed: it is this file alone that may not be read
        raise DataError(str(error)) from error


def _rows(params: Params, root: Path, path: Path) -> int:
    """How many rows the sets of params.yaml take from a file that lies in `root` as it would below `inputs`.

    Raises:
        DataError: no set reads it, or one cannot; says where.
    """
    source, preferences = params.source, params.preferences.source
    found, readers = 0, 0
    for part in source.sets if isinstance(source, FilesSource) else ():
        if _matches(path, part.paths, root):
            readers += 1
            found += sources.check_file(path, part)
    if isinstance(preferences, PreferenceFiles) and _matches(path, preferences.paths, root):
        readers += 1
        found += ready.check_file(path, preferences, params.splits)
    if not readers:
        name = f"{ARRIVALS}/*/{path.parent.name}/*{path.suffix}"
        raise DataError(f"no set of source.sets or preferences.source reads it; add the path {name}, or remove it")
    if not found:
        raise DataError("no row of it is taken; put rows into it that the set's `only` admits, or remove it")
    return found


def _matches(path: Path, patterns: tuple[str, ...], root: Path) -> bool:
    return any(path in root.glob(pattern) for pattern in patterns)
