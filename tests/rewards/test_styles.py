from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.config.data import Annotators, Style
from mixdpo.errors import DataError
from mixdpo.rewards.styles import Candidates, distinguishable_pairs, label_pairs, shares, standardisation, utilities

DIMENSIONS = ("sentiment", "grammar")


def style(share=1.0, domains=None, **weights):
    return Style(weights=weights, share=share, domains=domains)


STYLES = {"kind": style(sentiment=1.0), "strict": style(grammar=1.0)}


def annotators(**changes):
    values = {"train": 30, "validation": 5, "test": 9, "pairs": 6, "noise": 0.0, "min_gap": 0.2}
    return Annotators(**values | changes)


def candidates(prompts=40, each=4, seed=0):
    generator = np.random.default_rng(seed)
    codes = np.repeat(np.arange(prompts), each)
    return Candidates(
        prompts=generator.permuted(codes),
        completions=np.arange(len(codes)),
        domains=np.array(["movie", "book"])[np.zeros(len(codes), dtype=int)],
        scores=generator.normal(size=(len(codes), 2)),
    )


def with_domains(given, share_of_books=0.5):
    books = given.prompts < share_of_books * (given.prompts.max() + 1)
    return Candidates(given.prompts, given.completions, np.where(books, "book", "movie"), given.scores)


def label(given=None, styles=STYLES, settings=None, split="train", seed=0):
    return label_pairs(
        given or candidates(), DIMENSIONS, styles, settings or annotators(), split, np.random.default_rng(seed)
    )


def test_without_noise_the_chosen_one_has_the_higher_utility():
    given = candidates()
    for each in label(given):
        utility = utilities(given.scores, DIMENSIONS, STYLES[each.style])
        assert each.gap == pytest.approx(utility[each.chosen] - utility[each.rejected])
        assert each.gap >= 0.2
        assert not each.flipped
        assert given.prompts[each.chosen] == given.prompts[each.rejected]


def test_a_negative_weight_reverses_every_choice():
    likes = label(styles={"kind": style(sentiment=1.0)})
    dislikes = label(styles={"kind": style(sentiment=-1.0)})
    assert [(each.chosen, each.rejected) for each in likes] == [(each.rejected, each.chosen) for each in dislikes]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_each_annotator_labels_so_many_pairs_and_none_twice(split):
    settings = annotators()
    by_annotator = Counter(each.annotator for each in label(split=split))
    assert len(by_annotator) == getattr(settings, split)
    assert set(by_annotator.values()) == {settings.pairs}
    asked = [(each.annotator, frozenset((each.chosen, each.rejected))) for each in label(split=split)]
    assert len(set(asked)) == len(asked)


def walked(prompts, weights, count, generator):
    """Draws as one would make them by hand: a shuffled queue of pairs for each prompt, a round at a time."""
    names = sorted(set(prompts))
    queues = {name: [] for name in names}
    for place in generator.permutation(len(prompts)):
        queues[prompts[place]].append(place)
    turn = 0
    while count:
        able = [name for name in names if len(queues[name]) > turn]
        chances = np.array([weights[name] for name in able])
        size = min(count, len(able))
        for name in generator.choice(able, size=size, replace=False, p=chances / chances.sum()):
            yield queues[name][turn]
        count -= size
        turn += 1


@pytest.mark.parametrize("domains", [None, {"movie": 3.0, "book": 1.0}])
@pytest.mark.parametrize("pairs", [5, 30])
def test_draws_are_those_of_walking_queues_one_by_one(domains, pairs):
    given = with_domains(candidates(prompts=12), 0.25)
    asked = style(sentiment=1.0, domains=domains)
    found = label(given, {"kind": asked}, annotators(train=4, pairs=pairs))
    all_pairs = distinguishable_pairs(given, utilities(given.scores, DIMENSIONS, asked), 0.2)
    prompts = given.prompts[all_pairs.better].tolist()
    held = {name: len({p for p in prompts if (p < 3) == (name == "book")}) for name in ("movie", "book")}
    shares = domains or {name: float(count) for name, count in held.items()}
    weights = {
        p: shares[name] / held[name] for p in set(prompts) for name in ("movie", "book") if (p < 3) == (name == "book")
    }
    generator = np.random.default_rng(0)
    generator.permutation(["kind"] * 4)
    expected = []
    for _ in range(4):
        for place in walked(prompts, weights, pairs, generator):
            generator.random()  # whether the annotator errs
            expected.append((all_pairs.better[place], all_pairs.worse[place]))
    assert [(each.chosen, each.rejected) for each in found] == expected


def test_all_pairs_of_a_prompt_are_there_and_in_order():
    given = candidates(prompts=9, each=4)
    given = Candidates(given.prompts[:-5], given.completions[:-5], given.domains[:-5], given.scores[:-5])
    pairs = distinguishable_pairs(given, given.scores[:, 0], 0.0)
    groups = [np.flatnonzero(given.prompts == prompt) for prompt in sorted(set(given.prompts))]
    expected = [{left, right} for group in groups for left, right in combinations(group.tolist(), 2)]
    assert [set(pair) for pair in zip(pairs.better.tolist(), pairs.worse.tolist(), strict=True)] == expected


def test_prompts_are_distinct_while_they_last():
    given = candidates(prompts=8)
    for pairs, at_most in ((6, 1), (12, 2)):
        comparisons = label(given, settings=annotators(pairs=pairs, min_gap=0.0))
        seen = Counter((each.annotator, given.prompts[each.chosen]) for each in comparisons)
        assert max(seen.values()) == at_most


def test_one_seed_one_result():
    assert label(seed=3) == label(seed=3)
    assert label(seed=3) != label(seed=4)


def test_noise_flips_about_so_many_labels_and_keeps_their_gap():
    quiet, noisy = label(settings=annotators(train=300)), label(settings=annotators(train=300, noise=0.3))
    flipped = [each for each in noisy if each.flipped]
    assert len(flipped) / len(noisy) == pytest.approx(0.3, abs=0.04)
    assert all(each.gap > 0 for each in flipped)
    given = candidates()
    for each in flipped:
        utility = utilities(given.scores, DIMENSIONS, STYLES[each.style])
        assert utility[each.chosen] < utility[each.rejected]
    assert len(quiet) == len(noisy)


def test_annotators_keep_one_style_and_their_number_does_not_tell_it():
    comparisons = label(settings=annotators(train=200))
    by_annotator = {each.annotator: each.style for each in comparisons}
    assert len({(each.annotator, each.style) for each in comparisons}) == 200
    assert all(name.startswith("train-") and len(name) == len("train-0007") for name in by_annotator)
    numbers = {name: [int(who[6:]) for who, own in by_annotator.items() if own == name] for name in STYLES}
    assert abs(np.mean(numbers["kind"]) - np.mean(numbers["strict"])) < 25
    # neighbours share a style about as often as strangers do
    ordered = [by_annotator[who] for who in sorted(by_annotator)]
    assert 0.35 < np.mean([left == right for left, right in pairwise(ordered)]) < 0.65


def test_the_place_of_a_candidate_tells_nothing():
    comparisons = label(settings=annotators(train=400))
    assert np.mean([each.chosen < each.rejected for each in comparisons]) == pytest.approx(0.5, abs=0.06)


def test_domains_are_judged_about_as_often_as_wished():
    given = with_domains(candidates(prompts=200), share_of_books=0.7)
    styles = {
        "films": style(sentiment=1.0, domains={"movie": 3.0, "book": 1.0}),
        "books": style(sentiment=1.0, domains={"book": 1.0}),
        "all": style(sentiment=1.0),
    }
    comparisons = label(given, styles, annotators(train=150))
    share = {
        name: np.mean([given.domains[each.chosen] == "movie" for each in comparisons if each.style == name])
        for name in styles
    }
    assert share["films"] == pytest.approx(0.75, abs=0.06)
    assert share["books"] == 0.0
    assert share["all"] == pytest.approx(0.3, abs=0.06)


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(0.1, 10), min_size=1, max_size=6), st.integers(0, 500))
def test_shares_add_up_and_stay_near(weights, count):
    counts = shares(weights, count)
    assert sum(counts.values()) == count
    whole = sum(weights.values())
    assert all(abs(counts[name] - count * weight / whole) < 1 for name, weight in weights.items())


@given(st.integers(1, 9), st.integers(0, 100))
def test_equal_shares_are_balanced(styles, count):
    counts = shares({str(place): 1.0 for place in range(styles)}, count).values()
    assert max(counts) - min(counts) <= 1


def test_equal_completions_and_equal_utilities_are_never_compared():
    given = Candidates(
        prompts=np.array([0, 0, 0, 1]),
        completions=np.array(["a", "a", "b", "c"]),
        domains=np.full(4, "movie"),
        scores=np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [5.0, 0.0]]),
    )
    pairs = distinguishable_pairs(given, given.scores[:, 0], 0.0)
    assert list(zip(pairs.better, pairs.worse, pairs.gaps, strict=True)) == [(2, 0, 1.0)]


def test_too_few_pairs_says_how_many_and_what_to_change():
    message = (
        r"style kind: only \d+ pairs of \d+ test prompts differ by preferences.annotators.min_gap 3 or more, but each "
        r"annotator labels 6 \(preferences.annotators.pairs\); lower one of the two, or raise candidates.per_prompt or "
        r"candidates.prompts.test"
    )
    with pytest.raises(DataError, match=message):
        label(candidates(prompts=5), settings=annotators(min_gap=3.0), split="test")
    with pytest.raises(DataError, match=r"only 0 pairs of 0 train prompts in the domains poem differ"):
        label(styles={"kind": style(sentiment=1.0, domains={"poem": 1.0})})


def test_standardisation_needs_scores_that_differ():
    scores = np.array([[0.1, 0.5], [0.3, 0.5]])
    with pytest.raises(DataError, match="all training candidates have the same grammar score"):
        standardisation(scores, DIMENSIONS)
    with pytest.raises(DataError, match="there are no scored training candidates"):
        standardisation(scores[:0], DIMENSIONS)
    mean, deviation = standardisation(np.array([[0.1, 0.0], [0.3, 1.0]]), DIMENSIONS)
    assert np.allclose(mean, [0.2, 0.5])
    assert np.allclose(deviation, [0.1, 0.5])


def test_returning_annotators_are_known_ones_of_their_style():
    known = {each.annotator: each.style for each in label()}
    found = label_pairs(
        candidates(seed=1), DIMENSIONS, STYLES, annotators(returning=0.5), "test", np.random.default_rng(0), known
    )
    people = {each.annotator: each.style for each in found}
    assert len(people) == 9
    returned = {name: own for name, own in people.items() if name in known}
    assert len(returned) == round(0.5 * 9)
    assert returned == {name: known[name] for name in returned}
    assert all(name.startswith("test-") for name in people if name not in known)


def test_who_returns_changes_names_alone():
    known = {each.annotator: each.style for each in label()}
    some, none = (
        label_pairs(
            candidates(), DIMENSIONS, STYLES, annotators(returning=share), "test", np.random.default_rng(0), known
        )
        for share in (0.9, 0.0)
    )
    assert [each[1:] for each in some] == [each[1:] for each in none]
    assert none == label(split="test")


def test_more_returning_than_there_are_is_refused():
    with pytest.raises(
        DataError, match=r"8 of 9 test annotators are to return .* has only 0 training annotators; lower"
    ):
        label(split="test", settings=annotators(returning=0.9))
