"""A probabilistic grammar read from text: derives sentences, and says which word sequences it licenses."""

from __future__ import annotations

import itertools
import random
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from mixdpo.data.embedded.forms import article

VARIABLES = {
    "D": ("movie", "book"),
    "P": ("good", "bad"),
    "S": ("strong", "mild"),
    "N": ("sg", "pl"),
    "M": ("sg", "pl"),
    "G": ("m", "f"),
    "C": ("concrete", "vague"),
}
OPPOSITE = {"good": "bad", "bad": "good"}
# attributes that change what a phrase means but not where it may stand
MEANING = {value for name in "DPSGC" for value in VARIABLES[name]}
START, END = "<s>", "</s>"


class Token(NamedTuple):
    word: str
    symbol: str  # class of words it was drawn from; of a word that a rule writes out, the word itself


@dataclass(frozen=True)
class Choices:
    """Productions of one symbol and the running sums of their weights."""

    productions: tuple[tuple[str, ...], ...]
    bounds: tuple[float, ...]

    def draw(self, rng: random.Random) -> tuple[str, ...]:
        return self.productions[bisect(self.bounds, rng.random() * self.bounds[-1], 0, len(self.bounds) - 1)]


class Grammar:
    """`rules` in the notation of mixdpo.data.embedded.rules over the word classes `lexicon`."""

    def __init__(self, rules: str, lexicon: Mapping[str, Sequence[str]]) -> None:
        self.lexicon = lexicon
        self._rules = _instantiate(rules)
        self._check_symbols()

    def derive(self, symbol: str, rng: random.Random) -> list[Token]:
        """One random sentence (or phrase) of `symbol`, articles fitted to what follows them."""
        tokens: list[Token] = []
        self._expand(symbol, rng, tokens)
        for place, (token, following) in enumerate(itertools.pairwise(tokens)):
            if token.symbol == "a":
                tokens[place] = Token(article(following.word), "a")
        return tokens

    def _expand(self, symbol: str, rng: random.Random, tokens: list[Token]) -> None:
        for part in self._rules[symbol].draw(rng):
            if not part.startswith("$"):
                tokens.append(Token(part, part))
            elif part[1:] in self._rules:
                self._expand(part[1:], rng, tokens)
            else:
                words = self.lexicon[part[1:]]
                tokens.append(Token(words[int(rng.random() * len(words))], part[1:]))

    def _check_symbols(self) -> None:
        for head, choices in self._rules.items():
            for part in itertools.chain.from_iterable(choices.productions):
                name = part[1:]
                assert not part.startswith("$") or name in self._rules or name in self.lexicon, f"{head}: no {part}"

    def symbols(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Every rule: head to its productions, parts that are symbols marked by `$`."""
        return {head: choices.productions for head, choices in self._rules.items()}


def _instantiate(rules: str) -> dict[str, Choices]:
    """All rules with their variables filled in."""
    schemas: dict[str, list[tuple[float, list[str]]]] = {}
    head = ""
    for line in filter(str.strip, rules.splitlines()):
        if not line.startswith(" "):
            head = line.removesuffix(":")
            continue
        first, *rest = line.split()
        weight, body = (float(first), rest) if first.isdigit() else (1.0, [first, *rest])
        schemas.setdefault(head, []).append((weight, body))
    instances = {}
    for schema, productions in schemas.items():
        for bound in _bindings([schema], {}):
            bodies, weights = [], []
            for weight, body in productions:
                free = list(_bindings([part for part in body if part.startswith("$")], bound))
                for binding in free:
                    bodies.append(tuple(_fill(part, binding) if part.startswith("$") else part for part in body))
                    weights.append(weight / len(free))
            instances[_fill(schema, bound)] = Choices(tuple(bodies), tuple(itertools.accumulate(weights)))
    return instances


def _bindings(names: Iterable[str], bound: Mapping[str, str]) -> Iterable[dict[str, str]]:
    """Every way to give a value to the variables in `names` that `bound` leaves free."""
    used = {"P" if attribute == "Q" else attribute for name in names for attribute in name.split(".")[1:]}
    free = sorted(variable for variable in used if variable in VARIABLES and variable not in bound)
    for values in itertools.product(*(VARIABLES[variable] for variable in free)):
        binding = dict(bound) | dict(zip(free, values, strict=True))
        yield binding | ({"Q": OPPOSITE[binding["P"]]} if "P" in binding else {})


def _fill(name: str, binding: Mapping[str, str]) -> str:
    head, *attributes = name.split(".")
    return ".".join([head, *(binding.get(attribute, attribute) for attribute in attributes)])


def category(symbol: str) -> str:
    """The symbol without the attributes that carry meaning: what decides where it may stand."""
    head, *attributes = symbol.split(".")
    return ".".join([head, *(attribute for attribute in attributes if attribute not in MEANING)])


@dataclass
class _Ends:
    """What the yields of a symbol begin and end with: singles are yields of one category, pairs the ends of longer."""

    singles: set[str]
    prefixes: set[tuple[str, str]]
    suffixes: set[tuple[str, str]]
    trigrams: set[tuple[str, str, str]]

    def first(self) -> set[str]:
        return self.singles | {pair[0] for pair in self.prefixes}

    def last(self) -> set[str]:
        return self.singles | {pair[1] for pair in self.suffixes}

    def size(self) -> tuple[int, ...]:
        return len(self.singles), len(self.prefixes), len(self.suffixes), len(self.trigrams)


def _joined(left: _Ends, right: _Ends) -> _Ends:
    """Ends of the concatenation. Every yield of both sides has at least one category."""
    first, last = right.first(), left.last()
    return _Ends(
        set(),
        left.prefixes | set(itertools.product(left.singles, first)),
        right.suffixes | set(itertools.product(last, right.singles)),
        left.trigrams
        | right.trigrams
        | {(a, b, c) for (a, b), c in itertools.product(left.suffixes, first)}
        | {(a, b, c) for a, (b, c) in itertools.product(last, right.prefixes)},
    )


class License:
    """Which triples of neighbouring categories the sentences of a grammar can contain.

    A superset of the grammar's own sentences: dependencies longer than three words go unseen.
    """

    def __init__(self, grammar: Grammar, sentences: Iterable[str]) -> None:
        rules: dict[str, set[tuple[str, ...]]] = {}
        for head, productions in grammar.symbols().items():
            rules.setdefault(category(head), set()).update(
                tuple(f"${category(part[1:])}" if part.startswith("$") else part.lower() for part in production)
                for production in productions
            )
        self._trigrams = _trigrams(rules, {category(symbol) for symbol in sentences})
        self._categories: dict[str, set[str]] = {"an": {"a"}}
        for symbol, words in grammar.lexicon.items():
            for word in words:
                self._categories.setdefault(word.lower(), set()).add(category(symbol))
        for part in itertools.chain.from_iterable(itertools.chain.from_iterable(rules.values())):
            if not part.startswith("$"):
                self._categories.setdefault(part, set()).add(part)
        self._allows = lru_cache(maxsize=1 << 18)(self._look_up)

    def allows(self, words: Sequence[str], starts: bool = True, ends: bool = True) -> bool:
        """Whether each three neighbours of this sentence (lower case, marks as words) may stand together.

        `starts`, `ends`: the words are the whole sentence at this side, so they must also fit its border.
        """
        framed = [START] * starts + list(words) + [END] * ends
        return all(itertools.starmap(self._allows, zip(framed, framed[1:], framed[2:], strict=False)))

    def _look_up(self, first: str, second: str, third: str) -> bool:
        for word, following in ((first, second), (second, third)):
            if word in ("a", "an") and word != article(following):
                return False
        options = (self._categories.get(word, {word}) for word in (first, second, third))
        return any(trigram in self._trigrams for trigram in itertools.product(*options))


def _trigrams(rules: Mapping[str, set[tuple[str, ...]]], sentences: set[str]) -> set[tuple[str, str, str]]:
    """Least fixed point of the ends of all symbols, then the trigrams of the framed sentences."""
    ends = {head: _Ends(set(), set(), set(), set()) for head in rules}

    def of(part: str) -> _Ends:
        name = part.removeprefix("$")
        return ends[name] if name in ends and part != name else _Ends({name}, set(), set(), set())

    changed = True
    while changed:
        changed = False
        for head, productions in rules.items():
            known, before = ends[head], ends[head].size()
            for production in productions:
                found = of(production[0])
                for part in production[1:]:
                    found = _joined(found, of(part))
                known.singles |= found.singles
                known.prefixes |= found.prefixes
                known.suffixes |= found.suffixes
                known.trigrams |= found.trigrams
            changed |= known.size() != before
    start, end = _Ends({START}, set(), set(), set()), _Ends({END}, set(), set(), set())
    return set().union(*(_joined(_joined(start, ends[head]), end).trigrams for head in sentences))
