"""Rule-made grammatical damage: what turns a real English sentence into one that no careful writer would leave.

A rule proposes every edit of its kind that the words allow. `corrupt` draws a rule, then one of its edits, so that
common words do not crowd out rare kinds of fault. Punctuation stays where it was; a capital stays in front.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

Words = list[str]
Rule = Callable[[Words], list[Words]]

ARTICLES = frozenset({"a", "an", "the"})
PREPOSITIONS = ("of", "in", "on", "at", "for", "with", "from", "by", "about", "into")
FUNCTION_WORDS = frozenset({*PREPOSITIONS, "to", "is", "are", "was", "were", "be", "been", "has", "had", "that", "and"})
# what can be left out of nearly no sentence; "that" and "and" can be left out of many
NEEDED_WORDS = FUNCTION_WORDS - {"that", "and"}
# words that open a sentence with a capital but carry none inside it
OPENERS = (
    FUNCTION_WORDS | ARTICLES | {"this", "it", "he", "she", "they", "we", "you", "there", "these", "but", "if", "my"}
)

AGREEMENT = {"is": "are", "was": "were", "has": "have", "does": "do", "isn't": "aren't", "wasn't": "weren't"}
AGREEMENT |= {"doesn't": "don't", "hasn't": "haven't", "makes": "make", "seems": "seem", "feels": "feel"}
AGREEMENT |= {"looks": "look", "gets": "get", "takes": "take", "comes": "come", "goes": "go", "gives": "give"}
AGREEMENT |= {"keeps": "keep", "tells": "tell", "knows": "know", "finds": "find", "becomes": "become"}
AGREEMENT |= {"wants": "want", "needs": "need", "manages": "manage", "deserves": "deserve", "begins": "begin"}
AGREEMENT |= {singular_less: singular for singular, singular_less in AGREEMENT.items()}

# base form: (past, past participle); only verbs whose three forms tell
VERBS = {
    "be": ("was", "been"),
    "go": ("went", "gone"),
    "see": ("saw", "seen"),
    "make": ("made", "made"),
    "take": ("took", "taken"),
    "give": ("gave", "given"),
    "get": ("got", "gotten"),
    "know": ("knew", "known"),
    "think": ("thought", "thought"),
    "find": ("found", "found"),
    "feel": ("felt", "felt"),
    "leave": ("left", "left"),
    "keep": ("kept", "kept"),
    "tell": ("told", "told"),
    "write": ("wrote", "written"),
    "buy": ("bought", "bought"),
    "say": ("said", "said"),
    "have": ("had", "had"),
    "do": ("did", "done"),
    "watch": ("watched", "watched"),
    "like": ("liked", "liked"),
    "enjoy": ("enjoyed", "enjoyed"),
    "recommend": ("recommended", "recommended"),
    "finish": ("finished", "finished"),
    "love": ("loved", "loved"),
    "expect": ("expected", "expected"),
    "believe": ("believed", "believed"),
    "understand": ("understood", "understood"),
}
BASES = {participle: base for base, (_, participle) in VERBS.items()} | {
    past: base for base, (past, _) in VERBS.items()
}
WANT_BASE = frozenset({"to", "will", "would", "can", "could", "should", "must", "did", "didn't", "don't", "doesn't"})
WANT_PARTICIPLE = frozenset({"have", "has", "had", "haven't", "hasn't", "hadn't", "i've", "was", "were", "been"})


def drop_article(words: Words) -> list[Words]:
    """the film → film"""
    return [words[:i] + words[i + 1 :] for i, word in enumerate(words) if word.lower() in ARTICLES]


def double_article(words: Words) -> list[Words]:
    """the film → the a film"""
    other = {"the": "a", "a": "the", "an": "the"}
    return [
        [*words[: i + 1], other[bare(word)], *words[i + 1 :]] for i, word in enumerate(words) if bare(word) in ARTICLES
    ]


def wrong_article(words: Words) -> list[Words]:
    """an actor → a actor"""
    return _substitutions(words, {"a": ("an",), "an": ("a",)})


def wrong_agreement(words: Words) -> list[Words]:
    """she was → she were"""
    return _substitutions(words, {word: (other,) for word, other in AGREEMENT.items()})


def wrong_tense(words: Words) -> list[Words]:
    """did not like → did not liked; have seen → have see"""
    edits = []
    for i in range(1, len(words)):
        before = bare(words[i - 1])
        if before in {"not", "never"} and i > 1:
            before = bare(words[i - 2])
        word = bare(words[i])
        if before in WANT_BASE and word in VERBS:
            edits.append(_with(words, i, VERBS[word][0]))
        elif before in WANT_PARTICIPLE and word in BASES:
            edits.append(_with(words, i, BASES[word]))
    return edits


def wrong_preposition(words: Words) -> list[Words]:
    """at the end of the film → at the end into the film"""
    return _substitutions(
        words, {word: tuple(other for other in PREPOSITIONS if other != word) for word in PREPOSITIONS}
    )


def double_function_word(words: Words) -> list[Words]:
    """of the film → of of the film"""
    return [
        [*words[: i + 1], *words[i:]]
        for i, word in enumerate(words)
        if word.lower() in FUNCTION_WORDS | ARTICLES  # with punctuation behind it, it would not be the same word twice
    ]


def drop_function_word(words: Words) -> list[Words]:
    """one of the best → one the best"""
    return [words[:i] + words[i + 1 :] for i, word in enumerate(words) if word.lower() in NEEDED_WORDS]


def swap_words(words: Words) -> list[Words]:
    """the long film → the film long"""
    edits = []
    for i in range(len(words) - 1):
        left, right = words[i], words[i + 1]
        if bare(left) != bare(right) and bare(left) and bare(right):
            moved = _keeping_punctuation(left, bare_cased(right)), _keeping_punctuation(right, bare_cased(left))
            edits.append([*words[:i], *moved, *words[i + 2 :]])
    return edits


RULES: tuple[Rule, ...] = (
    drop_article,
    double_article,
    wrong_article,
    wrong_agreement,
    wrong_tense,
    wrong_preposition,
    double_function_word,
    drop_function_word,
    swap_words,
)


def corrupt(sentence: str, generator: np.random.Generator) -> str:
    """A damaged version of `sentence`, never equal to it (nor equal up to spaces and capitals).

    One fault, and one more for each 12 words. A sentence that no rule fits (a single word) gets its last word twice.

    Raises:
        ValueError: the sentence has no word.
    """
    words = sentence.split()
    if not words:
        raise ValueError("an empty sentence cannot be damaged")
    original = [word.lower() for word in words]
    damaged = words
    for _ in range(1 + len(words) // 12):
        damaged = _damage_once(damaged, original, generator)
    return " ".join(_capitalised_like(damaged, words))


def _damage_once(words: Words, original: Words, generator: np.random.Generator) -> Words:
    for i in generator.permutation(len(RULES)):
        rule: Rule = RULES[int(i)]
        # a second fault may undo the first: such an edit is none
        edits = [edit for edit in rule(words) if edit and [word.lower() for word in edit] != original]
        if edits:
            return edits[int(generator.integers(len(edits)))]
    return [*words, words[-1]]


def bare(word: str) -> str:
    """The word in small letters, without punctuation around it."""
    return bare_cased(word).lower()


def bare_cased(word: str) -> str:
    return word.strip('.,;:!?"“”()[]…')


def _substitutions(words: Words, others: dict[str, Sequence[str]]) -> list[Words]:
    return [_with(words, i, other) for i, word in enumerate(words) for other in others.get(bare(word), ())]


def _with(words: Words, i: int, replacement: str) -> Words:
    return [*words[:i], _keeping_punctuation(words[i], replacement), *words[i + 1 :]]


def _keeping_punctuation(word: str, replacement: str) -> str:
    return word.replace(bare_cased(word), replacement, 1)


def _capitalised_like(words: Words, original: Words) -> Words:
    """A capital in front where there was one, none left behind on a common word that moved from there."""
    first = original[0]
    if not re.match(r"[^\w]*[A-Z]", first):
        return words
    lowered = [
        word[:1].lower() + word[1:] if i and word == first and bare(word) in OPENERS else word
        for i, word in enumerate(words)
    ]
    return [lowered[0][:1].upper() + lowered[0][1:], *lowered[1:]]
