"""What landed since the last run: looked at, and taken whole into `inputs` as the next batch (mixdpo.data.batches).

The landing place is only ever read. A file counts as arrived once: by its content and its directory, whatever its name
and time. What cannot be taken is told with the reason, each time, and a bad file is copied to quarantine as well.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import FileLock

from mixdpo.config import Params
from mixdpo.config.data import ARRIVALS, Arrivals
from mixdpo.data.batches import MANIFEST, Batch, batch_directory, read_batches
from mixdpo.data.expectations.verdict import counted
from mixdpo.data.gathering import Gathering, Left, OnBad
from mixdpo.data.landing import Digests, open_landing
from mixdpo.errors import DataError, StorageError, ValidationStop
from mixdpo.files import read_json, replacing, storage_errors, write_json
from mixdpo.layout import Layout

PART = ".arriving-"  # below `inputs`/arrivals, while a batch is put together; patterns of params.yaml pass over it


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
    """Put what is new together below `staging`."""
    settings = _settings(params)
    store = open_landing(settings, layout.root)
    batches = read_batches(layout.root / params.inputs)
    number = batches[-1].number + 1 if batches else 1
    seen = {each.identity for batch in batches for each in batch.files}
    digests = Digests(layout.landing_digests, store.location)
    gathering = Gathering(params, staging, number, seen, digests, on_bad)
    gathering.run(store, settings, time.time() if now is None else now)
    digests.save()
    files = tuple(sorted(gathering.files, key=lambda each: each.file))
    batch = Batch.model_validate({"schema": 1, "number": number, "files": files}) if files else None
    return Arrived(store.location, batch, tuple(sorted(gathering.left, key=lambda each: each.source)), gathering.known)


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
