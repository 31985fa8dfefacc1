from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo.config.models import Candidates, Device, FromConfig
from mixdpo.data.embedded import generate_reviews
from mixdpo.training.tokenizer import new_causal_lm, train_bpe


@pytest.fixture(scope="session")
def settings() -> Candidates:
    return Candidates.model_validate(
        {
            "prompts": {"train": 4, "validation": 2, "test": 3},
            "prompt_words": (3, 6),
            "per_prompt": 3,
            "max_new_tokens": 6,
            "temperature": 1.0,
            "top_p": 1.0,
            "batch": 4,
        }
    )


@pytest.fixture(scope="session")
def cpu() -> Device:
    return Device(device="cpu", dtype="float32", threads=0)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small language model that was never trained."""
    directory = tmp_path_factory.mktemp("sft")
    tokenizer = train_bpe([review["text"] for review in generate_reviews(60, 10, seed=0)], 300, 64)
    shape = FromConfig(kind="config", architecture="gpt2", vocabulary=300, layers=1, width=16, heads=2, context=64)
    new_causal_lm(shape, tokenizer, seed=0).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
