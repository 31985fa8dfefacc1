from __future__ import annotations

import logging

import pytest
from transformers import PreTrainedTokenizerFast

from mixdpo.errors import DataError
from mixdpo.rewards.encoding import Encoder
from mixdpo.rewards.tokenizer import train_phrase_tokenizer

TEXTS = ["A film.", "Boring? No, not at all: great!", ""]


@pytest.fixture
def tokenizer():
    return train_phrase_tokenizer(TEXTS, 300, 32)


def bare(tokenizer):
    """The same tokenizer, without the token that it puts in front."""
    copy = PreTrainedTokenizerFast.from_pretrained(tokenizer.name_or_path)
    copy.backend_tokenizer.post_processor = None
    return copy


def test_what_a_tokenizer_was_last_used_for_is_no_part_of_its_key(tokenizer, tmp_path):
    key = Encoder(tokenizer, 32).key
    tokenizer.save_pretrained(tmp_path)
    tokenizer(TEXTS, truncation=True, max_length=3, padding=True)
    assert Encoder(tokenizer, 32).key == key
    assert Encoder(PreTrainedTokenizerFast.from_pretrained(tmp_path), 32).key == key


def test_other_tokens_are_another_key(tokenizer):
    keys = {
        Encoder(tokenizer, 32).key,
        Encoder(tokenizer, 16).key,
        Encoder(train_phrase_tokenizer(["Another film."], 300, 32), 32).key,
    }
    tokenizer.add_tokens(["film"])
    assert Encoder(tokenizer, 32).key not in keys
    assert len(keys) == 3


def test_long_texts_lose_their_end_which_is_said_once(tokenizer, caplog):
    encoder = Encoder(tokenizer, 8)
    with caplog.at_level(logging.WARNING):
        rows = encoder(TEXTS)
        assert encoder(TEXTS) == rows
    whole = [tokenizer(text)["input_ids"] for text in TEXTS]
    assert [len(row) for row in whole] != [len(row) for row in rows]
    assert rows == [row[:8] for row in whole]
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 3 texts are longer than the 8 tokens that the reward model reads; their ends are not judged"
    ]


def test_a_text_without_tokens_is_refused(tokenizer, tmp_path):
    assert len(Encoder(tokenizer, 32)(TEXTS)[2]) == 1  # [CLS]
    tokenizer.save_pretrained(tmp_path)
    tokenizer.name_or_path = str(tmp_path)
    with pytest.raises(DataError, match=r"^'' has no token that could be judged; drop the row of this text$"):
        Encoder(bare(tokenizer), 32)(TEXTS)


def test_no_texts(tokenizer):
    assert Encoder(tokenizer, 32)([]) == []
