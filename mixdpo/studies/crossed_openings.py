"""Openings about one domain in the language of the other, from the embedded grammar: "I watched this novel".

What a review is about stands in its nouns for works ("film", "memoir"); everything else that differs between domains
("watched", "director", "scene") is language. A gate met the two only together.
"""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

from mixdpo.data.embedded.forms import article
from mixdpo.data.embedded.generator import spell
from mixdpo.data.embedded.grammar import Token
from mixdpo.data.embedded.language import grammar

DOMAINS = ("book", "movie")
SUBJECT = frozenset({"work", "kind"})  # classes of words that say what is reviewed
TRIES = 400  # derivations for each prompt that is wanted


class Opening(NamedTuple):
    text: str
    subject: str
    language: str

    @property
    def crossed(self) -> bool:
        return self.subject != self.language


def openings(each: int, words: tuple[int, int], seed: int) -> list[Opening]:
    """`each` different openings of every subject in every language, all of which show both.

    Args:
        words: least and most words of an opening.
    """
    rng = random.Random(f"crossed:{seed}")
    found: dict[str, Opening] = {}
    for subject, language in itertools.product(DOMAINS, repeat=2):
        wanted = len(found) + each
        for _ in range(TRIES * each):
            if len(found) == wanted:
                break
            text = _opening(subject, language, rng.randint(*words), rng)
            if text is not None and text not in found:
                found[text] = Opening(text, subject, language)
        assert len(found) == wanted, f"the grammar has no {each} openings about a {subject} in {language} language"
    return list(found.values())


def _opening(subject: str, language: str, words: int, rng: random.Random) -> str | None:
    """The first words of a sentence, or None where they do not show subject and language both."""
    attributes = (rng.choice(("good", "bad")), rng.choice(("strong", "mild")), rng.choice(("concrete", "vague")))
    sentence = grammar().derive(".".join(("opening", language, *attributes)), rng)
    tokens = [_about(token, subject, language, rng) for token in sentence]
    for place, (token, following) in enumerate(itertools.pairwise(tokens)):
        if token.symbol == "a":
            tokens[place] = Token(article(following.word), "a")
    text = " ".join(spell(tokens).split()[:words])
    shown = set(text.lower().replace(",", "").split())
    about = {token.word for token in tokens if _class(token) in SUBJECT}
    said = {token.word for token in tokens if _tells(token, language)}
    return text if shown & about and shown & said else None


def _about(token: Token, subject: str, language: str, rng: random.Random) -> Token:
    """The same kind of word, about `subject`."""
    if _class(token) not in SUBJECT:
        return token
    symbol = token.symbol.removesuffix(language) + subject
    return Token(rng.choice(grammar().lexicon[symbol]), symbol)


def _tells(token: Token, language: str) -> bool:
    """Whether a word is of this language and not of the other."""
    if _class(token) in SUBJECT or not token.symbol.endswith(f".{language}"):
        return False
    others = (token.symbol.removesuffix(language) + other for other in DOMAINS if other != language)
    return all(token.word not in grammar().lexicon[other] for other in others)


def _class(token: Token) -> str:
    return token.symbol.split(".")[0]
