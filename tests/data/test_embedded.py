"""Laws of the embedded corpus: what the generator says of a review is what the oracle reads out of it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mixdpo.data.embedded import generate_reviews, truth
from mixdpo.data.embedded.damage import damage
from mixdpo.data.embedded.generator import spell
from mixdpo.data.embedded.grammar import Grammar, License
from mixdpo.data.embedded.language import SENTENCES, grammar, is_concrete, license
from mixdpo.data.embedded.opinions import OPINIONS
from mixdpo.data.embedded.things import THINGS


@pytest.fixture(scope="module")
def reviews():
    return generate_reviews(2000, users=40, seed=3)


@pytest.fixture(scope="module")
def truths(reviews):
    return [truth(review["text"]) for review in reviews]


def test_same_arguments_same_reviews_other_seed_others():
    assert generate_reviews(50, 5, seed=1) == generate_reviews(50, 5, seed=1)
    assert generate_reviews(50, 5, seed=1) != generate_reviews(50, 5, seed=2)


def test_reviews_have_the_promised_size_and_variety(reviews):
    lengths = [len(review["text"].split()) for review in reviews]
    assert 25 < np.mean(lengths) < 45
    assert min(lengths) >= 8
    assert max(lengths) <= 80
    vocabulary = {word.strip(".,!").lower() for review in reviews for word in review["text"].split()}
    assert 900 <= len(vocabulary) <= 1500
    assert len({review["text"] for review in reviews}) == len(reviews)


def test_the_oracle_reads_grammar_and_detail_as_the_generator_recorded_them(reviews, truths):
    for review, found in zip(reviews, truths, strict=True):
        assert found.grammar == pytest.approx(review["metadata"]["grammaticality"], abs=1e-3), review["text"]
        assert found.detail == pytest.approx(review["metadata"]["detail"], abs=1e-3), review["text"]


def test_the_oracle_reads_sentiment_as_the_stars_say(reviews, truths):
    labelled = [(r["label"], t.sentiment) for r, t in zip(reviews, truths, strict=True) if r["label"] is not None]
    assert np.mean([(sentiment > 0.5) == bool(label) for label, sentiment in labelled]) > 0.9
    assert spearmanr([r["stars"] for r in reviews], [t.sentiment for t in truths]).statistic > 0.8


def test_properties_are_independent_of_each_other(reviews):
    latents = np.array(
        [
            [r["stars"], r["metadata"]["grammaticality"], r["metadata"]["detail"], r["domain"] == "movie"]
            for r in generate_reviews(6000, users=3000, seed=3)
        ]
    )
    correlations = np.corrcoef(latents.T) - np.eye(4)
    assert np.abs(correlations).max() < 0.06
    assert 0.25 < np.mean([r["metadata"]["grammaticality"] < 1 for r in reviews]) < 0.45
    assert 0.3 < np.mean([r["label"] == 1 for r in reviews]) < 0.6


def test_users_have_tendencies(reviews):
    stars = [[r["stars"] for r in reviews if r["user_id"] == user] for user in {r["user_id"] for r in reviews}]
    between = np.var([np.mean(group) for group in stars])
    by_chance = np.mean([np.var(group) / len(group) for group in stars])
    assert between > 3 * by_chance


def test_the_domain_shows_in_the_first_words(reviews):
    words = {
        domain: {word for symbol, found in THINGS.items() if symbol.endswith(f".{domain}") for word in found}
        for domain in ("movie", "book")
    }
    openings = [(r["domain"], {word.strip(".,!").lower() for word in r["text"].split()[:6]}) for r in reviews]
    assert np.mean([bool(opening & words[domain]) for domain, opening in openings]) > 0.8


@given(st.integers(0, 10_000))
def test_every_derivation_is_licensed_and_damage_never_is(seed):
    rng = random.Random(seed)
    symbols = sorted(symbol for symbol in grammar().symbols() if symbol.split(".")[0] in SENTENCES)
    sentence = grammar().derive(rng.choice(symbols), rng)
    assert truth(spell(sentence)).grammar == 1.0
    broken = damage(sentence, grammar().lexicon, license(), rng)
    assert truth(spell(broken)).grammar == 0.0


@pytest.mark.parametrize(
    ("text", "sentiment"),
    [
        ("This film was superb.", 1.0),
        ("This film was terrible.", 0.0),
        ("The plot was not good.", 0.0),
        ("The plot was never very boring.", 1.0),
        ("The plot was good and the ending was bad.", 0.5),
        ("It begins in May.", 0.5),
        ("The plot was superb and the ending was bad.", 2 / 3),
        ("", 0.5),
    ],
)
def test_sentiment_weighs_praise_against_blame(text, sentiment):
    assert truth(text).sentiment == pytest.approx(sentiment)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("This film was superb.", 1.0),
        ("This film were superb.", 0.0),
        ("This film was superb superb.", 0.0),
        ("This film was a awful fiasco.", 0.0),
        ("This film was superb. Film this was superb.", 0.5),
        ("was superb. This film was superb.", 1.0),  # a completion: begins inside a sentence
        ("This film was superb. The plot wa", 1.0),  # cut off inside a word
        ("This film was zxqv bad.", 0.0),
        ("", 0.0),
    ],
)
def test_grammar_is_the_share_of_licensed_sentences(text, share):
    assert truth(text).grammar == share


def test_detail_counts_concrete_words():
    vague, some, much = (
        "It was good.",
        "The plot of the film in 1987 was good.",
        "Anna Keller hides nine letters in 1987.",
    )
    assert truth(vague).detail == 0.0 < truth(some).detail < truth(much).detail == 1.0


def test_no_word_has_two_meanings():
    praise = {word for symbol, found in OPINIONS.items() if ".good" in symbol for word in found}
    blame = {word for symbol, found in OPINIONS.items() if ".bad" in symbol for word in found}
    lexicon = grammar().lexicon.items()
    concrete = {word.lower() for symbol, found in lexicon if is_concrete(symbol) for word in found}
    vague = {word.lower() for symbol, found in lexicon if not is_concrete(symbol) for word in found}
    assert not praise & blame
    assert not concrete & vague


def test_license_knows_all_trigrams_of_a_grammar_and_no_others():
    rules = "s:\n  $noun $verb\n  the $noun $verb $s\nnoun:\n  cat\n  dog\n"
    small = License(Grammar(rules, {"verb": ("runs", "sits")}), ["s"])
    assert small.allows(["cat", "runs"])
    assert small.allows(["the", "dog", "sits", "the", "cat", "runs", "dog", "sits"])
    assert not small.allows(["the", "cat"])
    assert small.allows(["the", "cat"], ends=False)
    assert not small.allows(["runs", "the", "cat"])
    assert small.allows(["runs", "the", "cat"], starts=False, ends=False)
    assert not small.allows(["runs", "cat"])
    assert not small.allows(["cow", "runs"])
