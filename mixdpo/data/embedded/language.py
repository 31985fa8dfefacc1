"""The one language that the generator writes and the oracle reads."""

from __future__ import annotations

from functools import cache

from mixdpo.data.embedded.grammar import Grammar, License
from mixdpo.data.embedded.opinions import OPINIONS
from mixdpo.data.embedded.rules import RULES
from mixdpo.data.embedded.things import CONCRETE, THINGS

SENTENCES = ("opening", "body", "fact", "closing")
FULL_DENSITY = 0.35  # concrete words a word of text that count as all the detail there can be


@cache
def grammar() -> Grammar:
    return Grammar(RULES, THINGS | OPINIONS)


@cache
def license() -> License:
    known = grammar()
    return License(known, (head for head in known.symbols() if head.split(".")[0] in SENTENCES))


def is_concrete(symbol: str) -> bool:
    return symbol.split(".")[0] in CONCRETE


def detail(concrete: int, words: int) -> float:
    """Density of concrete words on [0, 1]."""
    return min(1.0, concrete / words / FULL_DENSITY) if words else 0.0
