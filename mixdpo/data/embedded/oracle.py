"""What any text of the embedded language is, read from the text alone: the truth that results are checked against."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from mixdpo.data.embedded.language import detail, grammar, is_concrete, license
from mixdpo.data.embedded.opinions import NEGATORS, OPINIONS, STRENGTH

TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")
ENDS = frozenset(".!?")
REACH = 2  # words over which a negator turns an opinion around: not very good


class Truth(NamedTuple):
    """Each on [0, 1]."""

    sentiment: float  # share of praise in all praise and blame, by strength; 0.5 where there is neither
    grammar: float  # share of sentences that the grammar licenses; 0 for a text without a word
    detail: float  # density of concrete words


def truth(text: str) -> Truth:
    """Read a review, or a sample of a policy.

    A text that begins in lower case is taken to begin inside a sentence, one without a mark at its end to be cut off
    there (its last word, perhaps half a word, is not held against it).
    """
    tokens = TOKEN.findall(text)
    words = [token.lower() for token in tokens]
    concrete = sum(word in _concrete_words() for word in words)
    counted = sum(word[0].isalnum() for word in words)
    begins = not text.lstrip()[:1].islower()
    return Truth(_sentiment(words), _grammar(words, begins) if counted else 0.0, detail(concrete, counted))


def _sentiment(words: list[str]) -> float:
    strengths = _strengths()
    praise = blame = 0.0
    for place, word in enumerate(words):
        strength = strengths.get(word, 0.0)
        if any(before in NEGATORS for before in words[max(0, place - REACH) : place]):
            strength = -strength
        praise += max(strength, 0.0)
        blame += max(-strength, 0.0)
    return praise / (praise + blame) if praise or blame else 0.5


def _grammar(words: list[str], begins: bool) -> float:
    sentences: list[list[str]] = [[]]
    for word in words:
        sentences[-1].append(word)
        if word in ENDS:
            sentences.append([])
    unfinished = sentences.pop()
    verdicts = [license().allows(sentence, starts=begins or place > 0) for place, sentence in enumerate(sentences)]
    if len(unfinished) > 1:
        verdicts.append(license().allows(unfinished[:-1], starts=begins or bool(sentences), ends=False))
    return sum(verdicts) / len(verdicts) if verdicts else 0.0


@cache
def _strengths() -> dict[str, float]:
    """Signed strength of each opinion word: praise above 0, blame below."""
    strengths: dict[str, float] = {}
    for symbol, words in OPINIONS.items():
        attributes = symbol.split(".")
        size = STRENGTH[attributes[-1]]
        for word in words:
            strengths[word] = size if "good" in attributes else -size
    return strengths


@cache
def _concrete_words() -> frozenset[str]:
    return frozenset(
        word.lower() for symbol, words in grammar().lexicon.items() if is_concrete(symbol) for word in words
    )
