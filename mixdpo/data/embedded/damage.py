"""Ungrammatical sentences: small, typical faults, repeated until the grammar no longer licenses the sentence."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from mixdpo.data.embedded.grammar import License, Token

FORMS = ("sg", "pl", "base", "past")
BE = {"was": "were", "were": "was", "is": "are", "are": "is"}
DROPPABLE = ("a", "the", "was", "were", "is", "are", "and", "in", "of", "that", "would", "will")
ATTEMPTS = 200  # one in three is enough on average; far above, so that the assertion speaks of a fault in the grammar


def damage(
    tokens: Sequence[Token], lexicon: Mapping[str, Sequence[str]], licensed: License, rng: random.Random
) -> list[Token]:
    """A copy of this sentence with one fault or more. Its last token, the mark, stays."""
    body, mark = list(tokens[:-1]), tokens[-1]
    for _ in range(ATTEMPTS):
        fault = FAULTS[rng.randrange(len(FAULTS))]
        body = fault(body, lexicon, rng)
        if not licensed.allows([token.word.lower() for token in (*body, mark)]):
            return [*body, mark]
    raise AssertionError("no damage made this sentence ungrammatical: " + " ".join(token.word for token in tokens))


def _drop(body: list[Token], _: Mapping[str, Sequence[str]], rng: random.Random) -> list[Token]:
    places = [place for place, token in enumerate(body) if token.symbol in DROPPABLE or token.symbol in BE]
    if not places or len(body) < 4:
        return body
    place = rng.choice(places)
    return body[:place] + body[place + 1 :]


def _double(body: list[Token], _: Mapping[str, Sequence[str]], rng: random.Random) -> list[Token]:
    place = rng.randrange(len(body))
    return body[: place + 1] + body[place:]


def _swap(body: list[Token], _: Mapping[str, Sequence[str]], rng: random.Random) -> list[Token]:
    place = rng.randrange(len(body) - 1)
    return [*body[:place], body[place + 1], body[place], *body[place + 2 :]]


def _disagree(body: list[Token], lexicon: Mapping[str, Sequence[str]], rng: random.Random) -> list[Token]:
    """Another number, person or tense of one word."""
    options = [(place, form) for place, token in enumerate(body) for form in _other_forms(token, lexicon)]
    if not options:
        return body
    place, form = rng.choice(options)
    return [*body[:place], form, *body[place + 1 :]]


def _other_forms(token: Token, lexicon: Mapping[str, Sequence[str]]) -> list[Token]:
    if token.word in BE:
        return [Token(BE[token.word], token.symbol)]
    if token.symbol == "a":
        return [Token("an" if token.word == "a" else "a", "a")]
    head, *attributes = token.symbol.split(".")
    if not attributes or attributes[0] not in FORMS or token.word not in lexicon[token.symbol]:
        return []
    place = lexicon[token.symbol].index(token.word)
    symbols = (".".join([head, form, *attributes[1:]]) for form in FORMS if form != attributes[0])
    return [Token(lexicon[symbol][place], symbol) for symbol in symbols if symbol in lexicon]


Fault = Callable[[list[Token], Mapping[str, Sequence[str]], random.Random], list[Token]]
FAULTS: tuple[Fault, ...] = (_drop, _disagree, _drop, _disagree, _double, _swap)  # the first two are the commonest
