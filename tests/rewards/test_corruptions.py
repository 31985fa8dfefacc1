from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.rewards import corruptions
from mixdpo.rewards.corruptions import RULES, corrupt

WORDS = [
    "the",
    "a",
    "film",
    "was",
    "were",
    "of",
    "to",
    "like",
    "not",
    "did",
    "seen",
    "have",
    "It",
    "The",
    "great,",
    "I",
]
SENTENCES = (
    "The actor was in a film about the end of the war, and he made it.",
    "I did not like the ending that she has written for an old friend.",
    "They have seen all of the plays that he wants to make.",
)


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=40), st.integers(0, 2**32))
def test_always_another_text_and_never_only_by_capitals(words, seed):
    sentence = " ".join(words)
    damaged = corrupt(sentence, np.random.default_rng(seed))
    assert damaged.lower() != sentence.lower()
    assert damaged == " ".join(damaged.split())


@given(st.text(min_size=1).filter(str.strip), st.integers(0, 2**32))
def test_any_text_with_a_word_can_be_damaged(text, seed):
    damaged = corrupt(text, np.random.default_rng(seed))
    assert damaged.lower().split() != text.lower().split()


def test_one_seed_one_result():
    first, second = ([corrupt(s, np.random.default_rng(7)) for s in SENTENCES] for _ in range(2))
    assert first == second


def test_a_capital_stays_in_front():
    for seed in range(50):
        assert corrupt(SENTENCES[0], np.random.default_rng(seed))[0].isupper()


def test_every_rule_is_drawn():
    generator = np.random.default_rng(0)
    seen = {corrupt(SENTENCES[place % 3], generator) for place in range(900)}
    assert len(seen) > 50
    for rule in RULES:
        assert any(rule(sentence.split()) for sentence in SENTENCES), rule.__name__


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (corruptions.drop_article, "saw the film", "saw film"),
        (corruptions.double_article, "the film", "the a film"),
        (corruptions.wrong_article, "an actor", "a actor"),
        (corruptions.wrong_agreement, "she was, there", "she were, there"),
        (corruptions.wrong_tense, "did not like it", "did not liked it"),
        (corruptions.wrong_tense, "I have seen it", "I have see it"),
        (corruptions.wrong_preposition, "one of them", "one into them"),
        (corruptions.double_function_word, "one of them", "one of of them"),
        (corruptions.drop_function_word, "one of them", "one them"),
        (corruptions.swap_words, "long film.", "film long."),
    ],
)
def test_what_each_rule_does(rule, before, after):
    assert after.split() in rule(before.split())


def test_an_empty_sentence_is_refused():
    with pytest.raises(ValueError, match="an empty sentence cannot be damaged"):
        corrupt("  ", np.random.default_rng(0))
