"""Reviews whose sentiment, grammaticality, detail, domain and author are known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mixdpo.data.embedded.damage import damage
from mixdpo.data.embedded.grammar import Token
from mixdpo.data.embedded.language import detail, grammar, is_concrete, license

VERSION = 1
MARKS = frozenset(".,!")
MIN_WORDS, ENOUGH_WORDS = 20, 50
LENGTHS = ((2, 0.2), (3, 0.35), (4, 0.3), (5, 0.15))  # sentences a review
# how often a sentence of a review with so many stars praises, and how often it does so (or blames) strongly
PRAISE = {1: 0.03, 2: 0.12, 3: 0.5, 4: 0.88, 5: 0.97}
STRONG = {1: 0.8, 2: 0.2, 3: 0.3, 4: 0.2, 5: 0.8}
NEUTRAL = 0.12  # share of reviews with three stars
FACTS = 0.2  # share of sentences without opinion
CLOSINGS = 0.3
CARELESS_SENTENCES = 0.6  # damaged sentences of a careless review


@dataclass(frozen=True)
class User:
    """An author's tendencies, drawn independently of each other."""

    user_id: str
    generosity: float  # how often a review praises
    carelessness: float  # how often a review has damaged sentences; 0.35 on average
    precision: float  # the usual share of concrete sentences
    films: float  # share of films among what is reviewed


def _user(number: int, rng: random.Random) -> User:
    return User(
        user_id=f"user-{number:04d}",
        generosity=rng.betavariate(3.0, 3.0),
        carelessness=rng.betavariate(1.4, 2.6),
        precision=rng.betavariate(1.5, 1.5),
        films=rng.betavariate(1.5, 1.5),
    )


def generate_reviews(count: int, users: int, seed: int) -> list[dict[str, Any]]:
    """`count` reviews by `users` authors: text, domain, stars, label, user_id and metadata.

    label is 1 from 4 stars, 0 up to 2, None between. metadata holds `grammaticality` (share of sentences left
    undamaged), `detail` (density of concrete words, 0 to 1) and the `generator`'s version. Sentiment, damage, detail
    and domain of a review are independent of each other. The same arguments give the same reviews.
    """
    return list(stream_reviews(count, users, seed))


def stream_reviews(count: int, users: int, seed: int) -> Iterator[dict[str, Any]]:
    """The same, one by one."""
    rng = random.Random(f"mixdpo:{VERSION}:{seed}")
    authors = [_user(number, rng) for number in range(users)]
    for _ in range(count):
        yield _review(rng.choice(authors), rng)


def _review(author: User, rng: random.Random) -> dict[str, Any]:
    domain = "movie" if rng.random() < author.films else "book"
    stars = _stars(author, rng)
    concreteness = min(1.0, max(0.0, rng.gauss(author.precision, 0.2)))
    sentences = _sentences(domain, stars, concreteness, rng)
    damaged = _damaged_places(author, len(sentences), rng)
    for place in damaged:
        sentences[place] = damage(sentences[place], grammar().lexicon, license(), rng)
    tokens = [token for sentence in sentences for token in sentence if token.word not in MARKS]
    return {
        "text": " ".join(map(spell, sentences)),
        "domain": domain,
        "stars": stars,
        "label": None if stars == 3 else int(stars > 3),
        "user_id": author.user_id,
        "metadata": {
            "grammaticality": round(1 - len(damaged) / len(sentences), 4),
            "detail": round(detail(sum(is_concrete(token.symbol) for token in tokens), len(tokens)), 4),
            "generator": VERSION,
        },
    }


def _stars(author: User, rng: random.Random) -> int:
    if rng.random() < NEUTRAL:
        return 3
    return rng.choice((4, 5) if rng.random() < author.generosity else (1, 2))


def _sentences(domain: str, stars: int, concreteness: float, rng: random.Random) -> list[list[Token]]:
    values, weights = zip(*LENGTHS, strict=True)
    planned = rng.choices(values, weights)[0]
    sentences: list[list[Token]] = []
    length = 0
    while length < MIN_WORDS or (len(sentences) < planned and length < ENOUGH_WORDS):
        left = planned - len(sentences)
        if not sentences:
            kind = "opening"
        elif left <= 1 and len(sentences) > 1 and rng.random() < CLOSINGS:
            kind = "closing"
        else:
            # the second sentence always has an opinion, for some openings have none
            kind = "fact" if len(sentences) > 1 and rng.random() < FACTS else "body"
        sentences.append(grammar().derive(_symbol(kind, domain, stars, concreteness, rng), rng))
        length += len(sentences[-1])
        if kind == "closing":
            break
    return sentences


def _symbol(kind: str, domain: str, stars: int, concreteness: float, rng: random.Random) -> str:
    manner = "concrete" if rng.random() < concreteness else "vague"
    polarity = "good" if rng.random() < PRAISE[stars] else "bad"
    strength = "strong" if rng.random() < STRONG[stars] else "mild"
    if kind == "fact":
        return f"fact.{domain}.{manner}"
    if kind == "closing":
        return f"closing.{polarity}.{strength}"
    return f"{kind}.{domain}.{polarity}.{strength}.{manner}"


def _damaged_places(author: User, sentences: int, rng: random.Random) -> list[int]:
    if rng.random() >= author.carelessness:
        return []
    places = [place for place in range(sentences) if rng.random() < CARELESS_SENTENCES]
    return places or [rng.randrange(sentences)]


def spell(sentence: list[Token]) -> str:
    """Words and marks as one writes them: a capital first, no space before a mark."""
    text = ""
    for token in sentence:
        text += token.word if not text or token.word in MARKS else f" {token.word}"
    return text[:1].upper() + text[1:]
