"""Texts that are all but the same: MinHash finds the candidates, the shingles themselves decide."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH

from mixdpo.progress import track

SHINGLE = 5  # words
PERMUTATIONS = 64
RECALL = 0.999
WORD = re.compile(r"\w+")
MIX = np.uint64(0x9E3779B97F4A7C15)

Shingles = npt.NDArray[np.uint32]


def near_duplicates(texts: Sequence[str], similarity: float) -> list[int]:
    """Places of the texts that resemble an earlier one which stays.

    Two texts resemble each other when the Jaccard similarity of their sets of 5-word shingles (lower case, marks left
    out) is at least `similarity`. MinHash proposes the pairs to compare: one in a thousand of those at the threshold is
    missed, none below it is ever taken. The same texts in the same order give the same places.
    """
    index = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(similarity))
    blank = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")
    kept: dict[int, Shingles] = {}
    dropped = []
    for place, text in enumerate(track(texts, "near duplicates")):
        shingles = _shingles(text)
        signature = blank.copy()
        signature.update_batch(shingles)
        if any(_jaccard(shingles, kept[other]) >= similarity for other in index.query(signature)):
            dropped.append(place)
        else:
            kept[place] = shingles
            index.insert(place, signature, check_duplication=False)
    return dropped


def _bands(similarity: float) -> tuple[int, int]:
    """How to cut a signature into (bands, rows): as few proposals as find 999 of 1000 pairs at this similarity.

    datasketch's own choice balances wrong proposals against missed ones; here wrong ones only cost a comparison.
    """
    found = [
        (PERMUTATIONS // rows, rows)
        for rows in range(1, PERMUTATIONS // 2 + 1)
        if 1 - (1 - similarity**rows) ** (PERMUTATIONS // rows) >= RECALL
    ]
    return found[-1] if found else (PERMUTATIONS, 1)


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
