from __future__ import annotations

import random
import re

import pytest

from mixdpo.config.models import Candidates, PromptCounts
from mixdpo.data.prompts import choose_prompts
from mixdpo.data.schema import split_of, text_id
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
