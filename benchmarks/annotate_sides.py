"""The two sides of annotate.py: this package's scoring and transformers' text-classification pipeline.

Each side runs in a process of its own and scores the texts whenever it is asked to, so that the two alternate.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from memory import forget_peak, peak_mb, resident_mb
from numpy.typing import NDArray
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    pipeline,
)

from mixdpo.compute import prepare_compute
from mixdpo.config.models import Device, RewardTraining
from mixdpo.data.embedded import generate_reviews
from mixdpo.rewards.architecture import new_classifier
from mixdpo.rewards.model import RewardModel, score_texts
from mixdpo.rewards.tokenizer import train_phrase_tokenizer

VOCABULARY, CONTEXT = 4000, 512
BATCH_TOKENS = 16384  # as the profiles have it

Score = Callable[[int], list[NDArray[np.float64]]]


class Lengths(NamedTuple):
    """Tokens of a generated review: log-normal, cut off at both ends."""

    median: float
    spread: float  # standard deviation of the logarithm
    shortest: int
    longest: int


# `films` and `books` are as published reviews of them are (24,769 and 5,422), at 1.3 tokens a word
LENGTHS = {"short": Lengths(70, 0.8, 5, 400), "films": Lengths(243, 0.64, 5, 500), "books": Lengths(87, 1.15, 2, 500)}


class Size(NamedTuple):
    layers: int
    width: int
    heads: int


SIZES = {"tiny": Size(1, 16, 2), "small": Size(1, 64, 2), "distilbert": Size(6, 768, 12)}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        models: how many, all of one tokenizer.
        texts: how many.
        lengths: of generated reviews.
        file: Parquet with a column `text`, in place of generated reviews.
    """

    size: str
    models: int
    dtype: str
    device: str
    threads: int
    texts: int
    lengths: str
    file: Path | None


class Measured(NamedTuple):
    wall: float  # seconds
    cpu: float  # processor seconds of this process
    scores: list[NDArray[np.float64]]  # by model, the probability of its last label


@cache
def corpus() -> list[str]:
    return [review["text"] for review in generate_reviews(2000, 50, seed=0)]


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return train_phrase_tokenizer(corpus(), VOCABULARY, CONTEXT)


def texts_of(case: Case) -> list[str]:
    """Different reviews of mixed length, in random order."""
    generator = np.random.default_rng(0)
    if case.file is not None:
        found = pq.read_table(case.file, columns=["text"])["text"].to_pylist()
        return [found[place] for place in generator.permutation(len(found))[: case.texts]]
    words = " ".join(corpus()).split()
    a_word = sum(map(len, tokenizer()(corpus())["input_ids"])) / len(words)  # in tokens
    of = LENGTHS[case.lengths]
    lengths = np.exp(generator.normal(np.log(of.median), of.spread, case.texts)).clip(of.shortest, of.longest)
    return list(_pieces(words, (lengths / a_word).astype(int).clip(1), generator))


def _pieces(words: list[str], lengths: NDArray[np.int64], generator: np.random.Generator) -> Iterator[str]:
    for length in lengths.tolist():
        start = int(generator.integers(len(words) - length))
        yield " ".join(words[start : start + length])


def new_models(case: Case) -> list[PreTrainedModel]:
    """Classifiers from their configuration: the kind trained here, or DistilBERT."""
    size = SIZES[case.size]
    if case.size == "distilbert":
        config = DistilBertConfig(vocab_size=30522, pad_token_id=tokenizer().pad_token_id, num_labels=2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [DistilBertForSequenceClassification(config).eval() for _ in range(case.models)]
    settings = RewardTraining(
        vocabulary=VOCABULARY,
        **size._asdict(),
        max_tokens=CONTEXT,
        snippet_words=(6, 40),
        epochs=1,
        batch=64,
        learning_rate=2e-3,
    )
    return [new_classifier(settings, tokenizer(), f"dimension {seed}", seed) for seed in range(case.models)]


def ours(case: Case) -> Score:
    """All models together, as `mixdpo annotate` does with a shard; the batch is this package's own affair."""
    compute = prepare_compute(Device(device=case.device, dtype=_name(case.dtype), threads=case.threads))
    models = {
        str(place): RewardModel(model, tokenizer(), 1, 1.0, compute) for place, model in enumerate(new_models(case))
    }
    texts = texts_of(case)
    return lambda _: list(score_texts(models, texts, BATCH_TOKENS).values())


def pipelines(case: Case) -> Score:
    """One model after the other, each by the pipeline, with batches of as many texts as it is asked for."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(case.threads or torch.get_num_threads())
    precision = torch.bfloat16 if case.dtype == "bf16" else torch.float32
    pipes = [
        pipeline("text-classification", model=model.to(precision), tokenizer=tokenizer(), device=case.device)
        for model in new_models(case)
    ]
    texts = texts_of(case)

    def score(batch: int) -> list[NDArray[np.float64]]:
        answers = [pipe(texts, batch_size=batch, truncation=True, top_k=None) for pipe in pipes]
        wanted = [pipe.model.config.id2label[1] for pipe in pipes]
        return [
            np.array([next(label["score"] for label in labels if label["label"] == name) for labels in each])
            for each, name in zip(answers, wanted, strict=True)
        ]

    return score


def serve(pipe: Connection, side: str, case: Case) -> None:
    """Score all texts for each batch size that the other end sends; on None, answer with the peak memory and end.

    Peak memory, in MB: above the process with its models and texts.
    """
    score = (ours if side == "ours" else pipelines)(case)
    base = resident_mb(case.device)
    forget_peak(case.device)
    while (batch := pipe.recv()) is not None:
        wall, cpu = time.perf_counter(), time.process_time()
        scores = score(batch)
        if case.device == "cuda":
            torch.cuda.synchronize()
        pipe.send(Measured(time.perf_counter() - wall, time.process_time() - cpu, scores))
    pipe.send(peak_mb(case.device) - base)


def _name(dtype: str) -> str:
    return "bfloat16" if dtype == "bf16" else "float32"
