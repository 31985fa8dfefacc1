from __future__ import annotations

import random
import re

import pytest

from mixdpo.config.models import Candidates, PromptCounts
from mixdpo.data.prompts import choose_prompts
from mixdpo.data.schema import split_of, text_id, unit_hash
from mixdpo.errors import DataError


def settings(train: int, validation: int, test: int, words: tuple[int, int] = (2, 4)) -> Candidates:
    return Candidates(
        prompts=PromptCounts(train=train, validation=validation, test=test),
        prompt_words=words,
        per_prompt=2,
        max_new_tokens=8,
        temperature=1.0,
        top_p=1.0,
        batch=4,
    )


def reviews(count: int, seed: int = 0) -> list[dict[str, str]]:
    words = random.Random(seed)
    rows = []
    for _ in range(count):
        text = " ".join(words.choice("abcdefgh") for _ in range(8))
        identifier = text_id(text)
        rows.append({"review_id": identifier, "text": text, "domain": "movie", "split": split_of(identifier, 0.2, 0.2)})
    return rows


def test_prompts_are_openings_of_the_asked_length_and_number() -> None:
    rows = reviews(400)
    chosen = choose_prompts(rows, settings(30, 5, 10))
    assert [sum(prompt.split == split for prompt in chosen) for split in ("train", "validation", "test")] == [30, 5, 10]
    for prompt in chosen:
        assert 2 <= len(prompt.text.split()) <= 4
        assert any(row["text"].startswith(f"{prompt.text} ") and row["split"] == prompt.split for row in rows)


def test_no_prompt_is_in_two_splits_and_the_test_split_keeps_a_shared_one() -> None:
    shared = [
        {"review_id": f"{split}{n}", "text": f"same opening {split} {n}", "domain": "book", "split": split}
        for split in ("train", "test")
        for n in range(3)
    ]
    rows = shared + [
        {"review_id": f"v{n}", "text": f"other start{n} here", "domain": "book", "split": split}
        for n, split in enumerate(["validation", "train", "train"])
    ]
    chosen = choose_prompts(rows, settings(2, 1, 1, words=(2, 2)))
    assert len({prompt.text for prompt in chosen}) == len(chosen)
    assert [prompt.split for prompt in chosen if prompt.text == "same opening"] == ["test"]


def plainly_chosen(rows: list[dict[str, str]], wanted: dict[str, int], shortest: int, longest: int) -> list[str]:
    """Openings as one would choose them with all reviews in memory."""
    seen: list[str] = []
    for split in ("test", "validation", "train"):
        found = 0
        for row in sorted(rows, key=lambda row: unit_hash(row["review_id"], "prompt")):
            length = shortest + int(unit_hash(row["review_id"], "length") * (longest - shortest + 1))
            words = row["text"].split()
            opening = " ".join(words[:length])
            if row["split"] == split and found < wanted[split] and opening not in seen and len(words) > length:
                seen.append(opening)
                found += 1
    return seen


@pytest.mark.parametrize("seed", range(4))
def test_they_are_those_that_all_reviews_in_memory_would_give(seed: int) -> None:
    rows = reviews(1500, seed)  # many share an opening: there are 8 words
    for row in rows[::7]:
        row["text"] = " ".join(row["text"].split()[:2])
    wanted = {"train": 25, "validation": 3, "test": 12}
    chosen = choose_prompts(iter(rows), settings(**wanted, words=(1, 2)))
    assert [prompt.text for prompt in chosen] == plainly_chosen(rows, wanted, 1, 2)


def test_order_of_the_reviews_does_not_matter() -> None:
    rows = reviews(300)
    assert choose_prompts(rows, settings(20, 5, 5)) == choose_prompts(rows[::-1], settings(20, 5, 5))


def test_a_review_that_ends_with_its_opening_is_no_prompt() -> None:
    rows = [{"review_id": "a", "text": "two words", "domain": "movie", "split": "test"}]
    message = (
        "split test has 0 different openings of 2 to 2 words, but candidates.prompts.test is 1; lower it, take longer "
        "openings or more reviews"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        choose_prompts(rows, settings(1, 1, 1, words=(2, 2)))
