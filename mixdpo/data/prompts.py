"""Prompts: the openings of reviews, each in one split only."""

from __future__ import annotations

from collections.abc import Iterable
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
        reviews: rows with review_id, text, domain and split.

    Raises:
        DataError: a split has fewer different openings than asked for.
    """
    shortest, longest = settings.prompt_words
    ordered = sorted(reviews, key=lambda review: unit_hash(review["review_id"], "prompt"))
    seen: set[str] = set()
    chosen: list[Prompt] = []
    for split, wanted in reversed(list(settings.prompts.model_dump().items())):
        found = 0
        for review in ordered:
            if found == wanted:
                break
            if review["split"] != split:
                continue
            length = shortest + int(unit_hash(review["review_id"], "length") * (longest - shortest + 1))
            words = review["text"].split()
            opening = " ".join(words[:length])
            # a review must go on after its opening, else there is nothing to write
            if opening in seen or len(words) <= length:
                continue
            seen.add(opening)
            found += 1
            chosen.append(Prompt(opening, review["domain"], split))
        if found < wanted:
            raise DataError(
                f"split {split} has {found} different openings of {shortest} to {longest} words, but "
                f"candidates.prompts.{split} is {wanted}; lower it, take longer openings or more reviews"
            )
    return chosen
