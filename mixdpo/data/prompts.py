"""Prompts: the openings of reviews, each in one split only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from mixdpo.data.schema import unit_hash
from mixdpo.errors import DataError

if TYPE_CHECKING:
    from mixdpo.config.models import Candidates


class Prompt(NamedTuple):
    text: str
    domain: str
    split: str


def choose_prompts(reviews: Iterable[dict[str, str]], settings: Candidates) -> list[Prompt]:
    """The first words of reviews, chosen and cut by hash, so that more reviews never change who is first.

    An opening that reviews of two splits share is kept in one alone: test before validation before train.

    Args:
        reviews: rows with review_id, text, domain and split; gone through once. In memory are as many openings of a
            split as are asked for of it and of those before it, twice.

    Raises:
        DataError: a split has fewer different openings than asked for.
    """
    shortest, longest = settings.prompt_words
    wanted = dict(reversed(list(settings.prompts.model_dump().items())))
    # those before a split can take away no more openings than they want
    most = dict(zip(wanted, accumulate(wanted.values()), strict=True))
    openings = {split: _Openings(count) for split, count in most.items()}
    for review in reviews:
        openings[review["split"]].add(review, shortest, longest)
    seen: set[str] = set()
    chosen: list[Prompt] = []
    for split, count in wanted.items():
        found = [prompt for prompt in openings[split].first() if prompt.text not in seen][:count]
        if len(found) < count:
            raise DataError(
                f"split {split} has {len(found)} different openings of {shortest} to {longest} words, but "
                f"candidates.prompts.{split} is {count}; lower it, take longer openings or more reviews"
            )
        seen.update(prompt.text for prompt in found)
        chosen += found
    return chosen


class _Openings:
    """The `most` different openings of one split that come first by their reviews' hash."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[str, tuple[float, Prompt]] = {}
        self._last = math.inf  # no review from here on is among the first

    def add(self, review: dict[str, str], shortest: int, longest: int) -> None:
        place = unit_hash(review["review_id"], "prompt")
        if place >= self._last:
            return
        length = shortest + int(unit_hash(review["review_id"], "length") * (longest - shortest + 1))
        words = review["text"].split(maxsplit=length)
        # a review must go on after its opening, else there is nothing to write
        if len(words) <= length:
            return
        opening = " ".join(words[:length])
        if opening not in self._found or place < self._found[opening][0]:
            self._found[opening] = place, Prompt(opening, review["domain"], review["split"])
        if len(self._found) > 2 * self._most:
            self._found = {prompt.text: (place, prompt) for place, prompt in self._sorted()}
            self._last = max((place for place, _ in self._found.values()), default=0.0)

    def first(self) -> list[Prompt]:
        return [prompt for _, prompt in self._sorted()]

    def _sorted(self) -> list[tuple[float, Prompt]]:
        return sorted(self._found.values())[: self._most]
