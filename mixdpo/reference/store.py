"""A directory of numbers by content that outlives a run: what one run computed, a later one finds."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixdpo.errors import DataError
from mixdpo.progress import track
from mixdpo.reference.known import Keys, Known, Values

# rows that are computed, and written, together
SEGMENT = 16384
# bytes of all stores beside each other; beyond them the least recently used are removed
ROOM = 4 << 30


class Store:
    """Segments of rows in one directory, whose name must say all that their numbers depend on but the content.

    Several processes may fill it at once: each writes segments of its own, whole or not at all.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._asked: list[Keys] = []
        self._segments = sorted(directory.glob("*.parquet"))
        parts = []
        for path in self._segments:
            # one that is damaged, or that another process has just merged with others, is computed again
            with suppress(DataError):
                parts.append(Known.read(path))
        self._known = Known.union(parts)

    def ask(self, keys: Keys, compute: Callable[[NDArray[np.int64]], Values], what: str) -> Values:
        """The rows of these keys, (keys, width); those that are not known are computed, segment by segment.

        Args:
            compute: from places in `keys` to their rows, (places, width). A killed run loses what one call computes.
            what: for the progress bar.
        """
        missing = self._known.missing(keys)
        parts = [self._known]
        starts = range(0, len(missing), SEGMENT)
        for start in track(starts, what) if len(starts) > 1 else starts:
            places = missing[start : start + SEGMENT]
            parts.append(Known.of(keys[places], compute(places)))
            self._segments.append(self._write(parts[-1]))
        self._known = Known.union(parts)
        self._asked.append(np.unique(keys))
        return self._known.take(keys)

    def asked(self) -> Known:
        """All rows that were asked for."""
        return self._known.only(np.concatenate(self._asked)) if self._asked else Known.nothing()

    def tidy(self) -> None:
        """Merge the segments that this run has seen; those that another process writes meanwhile stay.

        Rows that nobody asked for stay as long as they are no more than the others.
        """
        asked = self.asked()
        if not len(asked):
            return
        if len(self._known) > 2 * len(asked):
            self._known = asked
        elif len(self._segments) < 2:
            return
        merged = self._write(self._known)
        for path in self._segments:
            path.unlink(missing_ok=True)
        self._segments = [merged]

    def _write(self, segment: Known) -> Path:
        path = self.directory / f"{uuid.uuid4().hex}.parquet"
        segment.write(path)
        return path


def forget_oldest(used: Path, room: int = ROOM) -> None:
    """Remove those directories beside `used` that were used the longest ago, until all together fit in `room` bytes."""
    used.mkdir(parents=True, exist_ok=True)
    os.utime(used)
    left = room - _bytes(used)
    others = [path for path in used.parent.iterdir() if path.is_dir() and path != used]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        left -= _bytes(path)
        if left < 0:
            shutil.rmtree(path, ignore_errors=True)


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
