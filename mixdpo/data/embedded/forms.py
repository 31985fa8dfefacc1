"""English word forms, as far as the embedded corpus needs them."""

from __future__ import annotations

VOWELS = "aeiou"


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def nouns(name: str, text: str) -> dict[str, tuple[str, ...]]:
    """`name.sg` and `name.pl` from singulars; `thief:thieves` gives an irregular plural."""
    pairs = [_split(word, _with_s(word)) for word in text.split()]
    return _by_attribute(name, {"sg": [pair[0] for pair in pairs], "pl": [pair[1] for pair in pairs]})


def verbs(name: str, text: str) -> dict[str, tuple[str, ...]]:
    """`name.base`, `.sg` (he …s), `.pl` (they …) and `.past`; `shine:shone` gives an irregular past."""
    pairs = [_split(word, _past(word)) for word in text.split()]
    bases, pasts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return _by_attribute(name, {"base": bases, "sg": [_with_s(base) for base in bases], "pl": bases, "past": pasts})


def _by_attribute(name: str, forms: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    # the grammatical attribute comes first: work.sg.movie, so that names read from general to particular
    head, *rest = name.split(".")
    return {".".join([head, attribute, *rest]): tuple(forms[attribute]) for attribute in forms}


def _split(word: str, regular: str) -> tuple[str, str]:
    first, colon, second = word.partition(":")
    return (first, second) if colon else (word, regular)


def _past(base: str) -> str:
    return f"{base}d" if base.endswith("e") else f"{base}ed"


def _with_s(word: str) -> str:
    """The regular plural of a noun, and the third person of a verb."""
    if word.endswith(("s", "sh", "ch", "x", "z")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in VOWELS:
        return f"{word[:-1]}ies"
    return f"{word}s"


def article(following: str) -> str:
    """`a` or `an` before this word. The lexicon has no word whose first sound belies its first letter."""
    return "an" if following[:1].lower() in VOWELS else "a"
