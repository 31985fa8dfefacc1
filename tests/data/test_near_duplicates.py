from __future__ import annotations

import random

import pytest

from mixdpo.data.near_duplicates import near_duplicates


def shingles(text):
    words = text.lower().split()
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def changed(text, count, rng):
    words = text.split()
    for place in rng.sample(range(len(words)), count):
        words[place] = f"other{rng.randrange(1000)}"
    return " ".join(words)


def test_agrees_with_comparing_all_pairs():
    rng = random.Random(0)
    texts = []
    for _ in range(60):
        base = " ".join(f"w{rng.randrange(500)}" for _ in range(80))
        texts += [base, changed(base, 1, rng), changed(base, 6, rng)]
    kept, expected = [], []
    for place, text in enumerate(texts):
        own = shingles(text)
        if any(len(own & other) / len(own | other) >= 0.7 for other in kept):
            expected.append(place)
        else:
            kept.append(own)
    found = near_duplicates(texts, 0.7).tolist()
    assert set(found) <= set(expected)  # never one below the threshold
    assert len(found) >= 0.95 * len(expected) > 50


@pytest.mark.parametrize("similarity", [0.5, 1.0])
def test_case_and_marks_do_not_count(similarity):
    assert near_duplicates(["A fine, long day.", "a FINE long day", "!!!", "another text"], similarity).tolist() == [1]


def test_no_texts():
    assert near_duplicates([], 0.8).tolist() == []


def test_many_texts_that_resemble_one(tmp_path):
    words = " ".join(f"w{number}" for number in range(60))
    texts = [f"{words} {number}" for number in range(200)]
    assert near_duplicates(texts, 0.8, tmp_path).tolist() == list(range(1, 200))
    assert not list(tmp_path.iterdir())


def test_the_number_of_texts_that_are_hashed_together_does_not_matter(monkeypatch):
    rng = random.Random(1)
    texts = [" ".join(rng.choice("abc") for _ in range(12)) for _ in range(80)]
    whole = near_duplicates(texts, 0.4).tolist()
    monkeypatch.setattr("mixdpo.data.near_duplicates.AT_ONCE", 7)
    assert near_duplicates(texts, 0.4).tolist() == whole
    assert 0 < len(whole) < 79
