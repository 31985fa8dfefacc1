"""What landed since the last run: looked at, and taken whole into `inputs` as the next batch (mixdpo.data.batches).

The landing place is only ever read. A file counts as arrived once: by its content and its directory, whatever its name
and time. What cannot be taken is told with the reason, each time, and a bad file is copied to quarantine as well.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from filelock import FileLock

from mixdpo.config import Params
from mixdpo.config.data import ARRIVALS, Arrivals, FilesSource, PreferenceFiles
from mixdpo.data import ready, sources
from mixdpo.data.batches import MANIFEST, NAMED, Arrival, Batch, batch_directory, read_batches
from mixdpo.data.expectations.verdict import counted
from mixdpo.data.landing import Digests, open_landing
from mixdpo.data.tables import SUFFIXES
from mixdpo.errors import DataError, StorageError, ValidationStop
from mixdpo.files import read_json, replacing, storage_errors, write_json
from mixdpo.layout import Layout
from mixdpo.registry.store import CHUNK, Store, Stored

OnBad = Callable[[Path, PurePosixPath, "Left"], None]  # a bad file, its name below a batch, and why
NAME = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.=-]*/)*[A-Za-z0-9_][A-Za-z0-9_.=-]*")
PART = ".arriving-"  # below `inputs`/arrivals, while a batch is put together; patterns of params.yaml pass over it


@dataclass(frozen=True)
class Left:
    """A file that was not taken, and why."""

    source: str  # its name in the landing place
    reason: str
    bad: bool  # it will not get better by itself: it cannot be read as params.yaml says


@dataclass(frozen=True)
class Arrived:
    """What a look at the landing place found."""

    location: str
    batch: Batch | None  # what is new, None where nothing is
    left: tuple[Left, ...]
    known: int  # files that were taken before

    @property
    def bad(self) -> tuple[Left, ...]:
        return tuple(each for each in self.left if each.bad)

    @property
    def refusal(self) -> str:
        """What a run says that refuses bad files."""
        faults = "\n".join(f"  {each.source}: {each.reason}" for each in self.bad)
        return (
            f"nothing is taken from {self.location}, because of bad files:\n{faults}\n"
            "Correct or remove them where they landed, correct params.yaml if it reads them wrongly, or "
            "set arrivals.bad to quarantine to go on without them."
        )

    def __str__(self) -> str:
        new = counted(len(self.batch.files), "new file") if self.batch else "no new file"
        rows = f" of {counted(self.batch.rows, 'row')}" if self.batch else ""
        waiting = len(self.left) - len(self.bad)
        return (
            f"{new}{rows}, {self.known} known"
            + f", {waiting} left" * (waiting > 0)
            + f", {len(self.bad)} bad" * (len(self.bad) > 0)
        )


def look(params: Params, layout: Layout, now: float | None = None, staging: Path | None = None) -> Arrived:
    """What a run would take now; nothing is taken.

    Args:
        staging: a directory that what is new is put into as it would be below `inputs`; None: it is not kept.

    Raises:
        DataError: the landing place is not there, or a batch below `inputs` is damaged.
        TransientError, StorageError: the bucket does not answer, or not to these credentials.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return _gather(params, layout, staging or Path(temporary), now, lambda *_: None)


def take(params: Params, layout: Layout, now: float | None = None) -> Arrived:
    """Take what is new into `inputs` as one batch, whole or not at all.

    Raises:
        ValidationStop: a file is bad and `arrivals.bad` is refuse; nothing was taken, and it lies in quarantine.
        StorageError: no space, not writable, or another project took files into the same `inputs` at this moment.
        DataError, TransientError: as `look`.
    """
    settings = _settings(params)
    inputs = layout.root / params.inputs
    with _alone(layout), _staging(inputs / ARRIVALS) as staging:
        found = _gather(params, layout, staging, now, partial(_quarantine, layout))
        if settings.bad == "refuse" and found.bad:
            raise ValidationStop(f"{found.refusal}\nThey lie in {layout.arrivals_quarantine} too.")
        if found.batch is not None:
            _put(staging, inputs, found.batch)
    return found


def _settings(params: Params) -> Arrivals:
    if params.arrivals is None:
        raise DataError("params.yaml says nothing of arrivals; give it a section with url, settle_seconds and bad")
    return params.arrivals


def _gather(params: Params, layout: Layout, staging: Path, now: float | None, on_bad: OnBad) -> Arrived:
    """Copy what is new to `staging`, laid out as below `inputs`, and read all of it once."""
    settings, moment = _settings(params), time.time() if now is None else now
    store = open_landing(settings, layout.root)
    batches = read_batches(layout.root / params.inputs)
    number = batches[-1].number + 1 if batches else 1
    seen = {each.identity for batch in batches for each in batch.files}
    digests = Digests(layout.landing_digests, store.location)
    files: list[Arrival] = []
    left: list[Left] = []
    known = 0
    for stored in store.list(""):
        if reason := _not_yet(stored, settings, moment):
            left.append(Left(stored.key, reason, bad=False))
            continue
        parent = PurePosixPath(stored.key).parent
        if (str(parent), digests.get(stored)) in seen:
            known += 1
            continue
        try:
            copy, sha256 = _fetch(store, stored, staging)
        except DataError as error:
            left.append(Left(stored.key, str(error), bad=False))
            continue
        digests.put(stored, sha256)
        file = parent / f"{sha256[:NAMED]}{copy.suffix}"
        if (str(parent), sha256) in seen:
            known += 1
            continue
        path = batch_directory(staging, number) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(copy, path)
        try:
            rows = _rows(params, staging, path)
        except DataError as error:
            reason = str(error).replace(str(path), stored.key).replace(path.name, PurePosixPath(stored.key).name)
            left.append(Left(stored.key, reason, bad=True))
            on_bad(path, file, left[-1])
            path.unlink()
            continue
        seen.add((str(parent), sha256))
        files.append(Arrival(source=stored.key, file=str(file), sha256=sha256, bytes=stored.size, rows=rows))
    digests.save()
    batch = {"schema": 1, "number": number, "files": tuple(sorted(files, key=lambda each: each.file))}
    return Arrived(store.location, Batch.model_validate(batch) if files else None, tuple(left), known)


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


def _fetch(store: Store, stored: Stored, staging: Path) -> tuple[Path, str]:
    """A copy of a landed file and its sha256. Raises DataError where it changed or went while it was read."""
    copy = staging / f"fetched{PurePosixPath(stored.key).suffix}"
    hasher, size = hashlib.sha256(), 0
    try:
        with _opened(store, stored.key) as stream, storage_errors(copy), copy.open("wb") as out:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
                out.write(chunk)
                size += len(chunk)
            out.flush()
            os.fsync(out.fileno())
        again = [each for each in store.list(stored.key) if each.key == stored.key]
    except FileNotFoundError:
        again = []
    if again != [stored] or size != stored.size:
        raise DataError("it changed while it was read: it is looked at again by the next run")
    return copy, hasher.hexdigest()


def _opened(store: Store, key: str) -> BinaryIO:
    try:
        return store.open(key)
    except StorageError as error:  # the place could be listed: it is this file alone that may not be read
        raise DataError(str(error)) from error


def _rows(params: Params, staging: Path, path: Path) -> int:
    """How many rows the sets of params.yaml take from a file that lies in `staging` as it would below `inputs`.

    Raises:
        DataError: no set reads it, or one cannot; says where.
    """
    source, preferences = params.source, params.preferences.source
    found, readers = 0, 0
    for part in source.sets if isinstance(source, FilesSource) else ():
        if _matches(path, part.paths, staging):
            readers += 1
            found += sources.check_file(path, part)
    if isinstance(preferences, PreferenceFiles) and _matches(path, preferences.paths, staging):
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


def _put(staging: Path, inputs: Path, batch: Batch) -> None:
    prepared, final = batch_directory(staging, batch.number), batch_directory(inputs, batch.number)
    write_json(prepared / MANIFEST, batch.model_dump(mode="json", by_alias=True))
    for path in prepared.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    with storage_errors(final):
        try:
            os.rename(prepared, final)  # fails where another batch has that number
        except OSError as error:
            if not final.exists():
                raise
            raise StorageError(f"{final} was taken by another run at this moment; run again") from error


def _quarantine(layout: Layout, path: Path, file: PurePosixPath, left: Left) -> None:
    """Keep a copy of a bad file, named by its content, and why it is bad."""
    place = layout.arrivals_quarantine
    with replacing(place / file) as copy:
        shutil.copyfile(path, copy)
    manifest = place / MANIFEST
    known = read_json(manifest) if manifest.is_file() else {}
    write_json(manifest, {**known, str(file): {"source": left.source, "reason": left.reason}})


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    lock = layout.landing_digests.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


@contextmanager
def _staging(place: Path) -> Iterator[Path]:
    """A directory on the disk of `place`, gone afterwards; what a killed run left of such is removed first."""
    with storage_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        for leftover in place.glob(f"{PART}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=PART, dir=place) as staging:
            yield Path(staging)
        if not any(place.iterdir()):
            place.rmdir()
