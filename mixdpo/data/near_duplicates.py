"""Texts that are all but the same: MinHash finds the candidates, the shingles themselves decide."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import chain, compress, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from mixdpo.progress import track

SHINGLE = 5  # words
PERMUTATIONS = 64
RECALL = 0.999
AT_ONCE = 1024  # texts whose bands are hashed together
WORD = re.compile(r"\w+")
MIX = np.uint64(0x9E3779B97F4A7C15)

Shingles = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Buckets = npt.NDArray[np.int32]


def near_duplicates(texts: Iterable[str], similarity: float, spill: Path | None = None) -> Places:
    """Places of the texts that resemble an earlier one which stays, ascending.

    Two texts resemble each other when the Jaccard similarity of their sets of 5-word shingles (lower case, marks left
    out) is at least `similarity`. MinHash proposes the pairs to compare: one in a thousand of those at the threshold is
    missed, none below it is ever taken. The same texts in the same order give the same places.

    In memory are 25 bytes a text at most; of the texts that are proposed for a comparison, also their shingles.

    Args:
        texts: gone through twice, so they may come from a file.
        spill: directory for temporary files of some 130 bytes a text; None: the system's.
    """
    bands, rows = _bands(similarity)
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile(dir=spill)) for _ in range(bands)]
        for keys in _keys(track(texts, "near duplicates"), bands, rows):
            for file, own in zip(files, keys, strict=True):
                file.write(own.tobytes())
        proposed = _proposed(files)
        buckets = np.stack([np.unique(_read(file)[proposed], return_inverse=True)[1] for file in files], axis=1)
    resembling = _resembling(compress(texts, proposed), buckets.astype(np.int32), similarity)
    return np.flatnonzero(proposed)[resembling]


def _bands(similarity: float) -> tuple[int, int]:
    """How to cut a signature into (bands, rows): as few proposals as find 999 of 1000 pairs at this similarity.

    The usual choice balances wrong proposals against missed ones; here wrong ones only cost a comparison.
    """
    found = [
        (PERMUTATIONS // rows, rows)
        for rows in range(1, PERMUTATIONS // 2 + 1)
        if 1 - (1 - similarity**rows) ** (PERMUTATIONS // rows) >= RECALL
    ]
    return found[-1] if found else (PERMUTATIONS, 1)


def _keys(texts: Iterable[str], bands: int, rows: int) -> Iterator[Keys]:
    """(bands, AT_ONCE) hashes of the bands of the next texts. Where two bands share one, a comparison is in vain."""
    minhash = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")
    iterator = iter(texts)
    while some := list(islice(iterator, AT_ONCE)):
        signatures = np.empty((len(some), PERMUTATIONS), dtype=np.uint64)
        for place, text in enumerate(some):
            minhash.clear()
            minhash.update_batch(_shingles(text))
            signatures[place] = minhash.hashvalues
        keys = np.zeros((len(some), bands), dtype=np.uint64)
        for values in np.moveaxis(signatures[:, : bands * rows].reshape(len(some), bands, rows), 2, 0):
            keys = (keys ^ values) * MIX
        yield keys.T


def _read(file: IO[bytes]) -> Keys:
    file.seek(0)
    return np.fromfile(file, dtype=np.uint64)


def _proposed(files: Sequence[IO[bytes]]) -> Flags:
    """Which texts share a band with another."""
    proposed = np.array(False)
    for file in files:
        keys = _read(file)
        order = np.argsort(keys)
        keys = keys[order]
        same = keys[1:] == keys[:-1]
        shared = np.zeros(len(keys), dtype=bool)
        shared[order[1:][same]] = shared[order[:-1][same]] = True
        proposed = proposed | shared
    return proposed


def _resembling(texts: Iterable[str], buckets: Buckets, similarity: float) -> Flags:
    """Which of these texts resemble an earlier one that does not itself.

    Args:
        buckets: (texts, bands): two texts with the same number in one band are compared.
    """
    found = np.zeros(len(buckets), dtype=bool)
    kept: dict[int, Shingles] = {}
    # of each bucket the last text that was kept; of each such text the one before it in its buckets
    last = np.full((buckets.shape[1], buckets.max(initial=-1) + 1), -1, dtype=np.int32)
    before = np.full_like(buckets, -1)
    bands = np.arange(buckets.shape[1])
    for place, text in enumerate(texts):
        shingles = _shingles(text)
        latest = last[bands, buckets[place]]
        others = set(chain.from_iterable(map(_back, latest.tolist(), before.T)))
        found[place] = any(_jaccard(shingles, kept[other]) >= similarity for other in others)
        if not found[place]:
            kept[place] = shingles
            before[place] = latest
            last[bands, buckets[place]] = place
    return found


def _back(place: int, before: Buckets) -> Iterator[int]:
    """This place and those before it in its bucket."""
    while place >= 0:
        yield place
        place = int(before[place])


def _shingles(text: str) -> Shingles:
    """Hashes of the distinct runs of 5 words; a text of fewer words is one run."""
    words = np.array([_word(word) for word in WORD.findall(text.lower()) or text.split()], dtype=np.uint64)
    width = min(SHINGLE, len(words))
    hashes = np.zeros(len(words) - width + 1, dtype=np.uint64)
    for offset in range(width):
        hashes = (hashes ^ words[offset : offset + len(hashes)]) * MIX
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


@lru_cache(maxsize=1 << 17)
def _word(word: str) -> int:
    # not hash(): that differs from one Python process to the next
    return zlib.crc32(word.encode("utf-8"))


def _jaccard(first: Shingles, second: Shingles) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)
