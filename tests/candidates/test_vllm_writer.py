"""vLLM's own part is a stand-in with its signatures, but for the last test, which wants the real one."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from mixdpo.candidates.completion import Completion, openings_table
from mixdpo.candidates.vllm_writer import VllmWriter, row_seed
from mixdpo.candidates.writer import open_writer
from mixdpo.config.models import Candidates, Device, FromConfig, Vllm
from mixdpo.data.prompts import Prompt
from mixdpo.errors import ConfigError, ModelError
from mixdpo.policy import MixturePolicy
from mixdpo.training.tokenizer import new_causal_lm

PROMPTS = ["the film was good", "a", "the film was good", "it is a book", "b"]

STAND_IN = """
print("a banner on standard output")
__version__ = "0"

class SamplingParams:
    def __init__(self, *, temperature, top_p, max_tokens, seed, stop_token_ids, ignore_eos, detokenize):
        assert ignore_eos and not detokenize
        self.seed, self.most, self.stop = seed, max_tokens, stop_token_ids

class LLM:
    def __init__(self, model, *, dtype, max_num_seqs, tensor_parallel_size, gpu_memory_utilization,
                 skip_tokenizer_init, generation_config):
        if tensor_parallel_size > 1:
            raise ValueError(f"{tensor_parallel_size} GPUs are not here\\nnor there")

    def generate(self, prompts, sampling_params, *, use_tqdm):
        print("progress")
        return [Row(prompt["prompt_token_ids"], each) for prompt, each in zip(prompts, sampling_params, strict=True)]

class Row:
    def __init__(self, ids, sampling):
        text = [ids[-1], 20 + sampling.seed % 200, 20 + sampling.seed % 31]
        stopped = [text[0], *sampling.stop] if sampling.seed % 2 else text
        self.outputs = [type("CompletionOutput", (), {"token_ids": tuple(stopped[: sampling.most])})]
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> str:
    """An interpreter of an environment with a package `vllm`."""
    package = tmp_path / "environment" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN, encoding="utf-8")
    (package / "inputs.py").write_text("TokensPrompt = dict\n", encoding="utf-8")
    python = tmp_path / "python"
    run = (
        f"import runpy, sys; sys.path.insert(0, {str(package.parent)!r}); runpy.run_path(sys.argv[2], {{}}, '__main__')"
    )
    python.write_text(f"#!{sys.executable}\n{run}\n", encoding="utf-8")
    python.chmod(0o755)
    return str(python)


def asked(settings: Candidates, python: str, gpus: int = 1, **changes: object) -> Candidates:
    return settings.model_copy(update={"vllm": Vllm(python=python, gpus=gpus, memory=0.2), **changes})


def test_rows_come_back_in_their_order_whatever_their_shard(
    interpreter: str, model: Path, settings: Candidates, cpu: Device
) -> None:
    writer = open_writer(model, asked(settings, interpreter), cpu, seed=3)
    assert isinstance(writer, VllmWriter)
    tokenizer = writer.tokenizer
    texts, finished = writer.write(PROMPTS, first=0)
    ends = [bool(row_seed(3, row) % 2) for row in range(5)]
    assert {True, False} == set(ends)
    assert finished == ends
    for row, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True)):
        last, seed = tokenizer(prompt)["input_ids"][-1], row_seed(3, row)
        assert text == tokenizer.decode([last] if ends[row] else [last, 20 + seed % 200, 20 + seed % 31])
    assert writer.write(PROMPTS[2:4], first=2) == (texts[2:4], finished[2:4])
    assert writer.write([], first=9) == ([], [])


def test_candidates_are_completed_by_it(interpreter: str, model: Path, settings: Candidates, cpu: Device) -> None:
    work = Completion(model, asked(settings, interpreter), cpu, seed=3).load()
    openings = openings_table([Prompt(text, "movie", "train") for text in ("one film", "two films")])
    whole = work(openings)
    assert len(whole) == 6
    assert work(openings.slice(1)).equals(whole.slice(3))


def test_seeds_of_rows_are_their_own() -> None:
    seeds = {row_seed(seed, place) for seed in range(40) for place in range(50)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_its_process_ends_with_the_writer(interpreter: str, model: Path, settings: Candidates, cpu: Device) -> None:
    writer = open_writer(model, asked(settings, interpreter), cpu, seed=0)
    assert isinstance(writer, VllmWriter)
    process = writer.process
    assert process.poll() is None
    del writer
    assert process.poll() == 0


def test_what_is_not_there_is_said_with_a_remedy(
    model: Path, settings: Candidates, cpu: Device, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"python is .*/none, which cannot be run \(No such file.*leave candidates.vllm"
    ):
        open_writer(model, asked(settings, str(tmp_path / "none")), cpu, seed=0)
    with pytest.raises(ConfigError, match=r"has no package vllm; install it in an environment of its own"):
        open_writer(model, asked(settings, sys.executable), cpu, seed=0)
    with pytest.raises(ModelError, match=r"it ended with exit code 0 and no answer"):
        open_writer(model, asked(settings, "true"), cpu, seed=0)
    with pytest.raises(ModelError, match=r"run `mixdpo sft`"):
        open_writer(tmp_path, asked(settings, sys.executable), cpu, seed=0)


def test_what_vllm_refuses_is_said(interpreter: str, model: Path, settings: Candidates, cpu: Device, capfd) -> None:
    with pytest.raises(ModelError, match=r"did not write candidates: ValueError: 2 GPUs are not here"):
        open_writer(model, asked(settings, interpreter, gpus=2), cpu, seed=0)
    assert "a banner on standard output" in capfd.readouterr().err
    writer = open_writer(model, asked(settings, interpreter, max_new_tokens=60), cpu, seed=0)
    with pytest.raises(ConfigError, match="do not fit the 64 positions"):
        writer.write(PROMPTS, first=0)


REAL = os.environ.get("MIXDPO_VLLM_PYTHON")


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="MIXDPO_VLLM_PYTHON names no interpreter of an environment with vLLM")
def test_vllm_itself_writes_what_the_model_says(model: Path, settings: Candidates, cpu: Device, tmp_path: Path) -> None:
    assert REAL is not None
    # heads of 8 are too narrow for its attention
    shape = FromConfig(kind="config", architecture="gpt2", vocabulary=300, layers=2, width=64, heads=2, context=64)
    tokenizer = AutoTokenizer.from_pretrained(model)
    new_causal_lm(shape, tokenizer, seed=0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    writer = open_writer(tmp_path, asked(settings, REAL, batch=256), cpu.model_copy(update={"device": "auto"}), seed=1)
    assert isinstance(writer, VllmWriter)

    # the likeliest token each time, in float32: as our own decoder
    greedy = settings.model_copy(update={"top_p": 1e-6, "max_new_tokens": 20})
    writer.settings = greedy
    assert writer.write(PROMPTS, 0) == open_writer(tmp_path, greedy, cpu, seed=0).write(PROMPTS, 0)

    writer.settings = settings.model_copy(update={"max_new_tokens": 40})
    texts, finished = writer.write(PROMPTS * 20, first=7)
    assert 0 < sum(finished) < 50  # one token of 300 is the end
    assert len(set(texts)) > 95
    assert writer.write(PROMPTS * 4, first=7 + 5) == (texts[5:25], finished[5:25])

    writer.settings = settings.model_copy(update={"max_new_tokens": 1})
    draws = Counter(zip(*writer.write(["the film"] * 6000, first=0), strict=True))
    policy = MixturePolicy.from_causal_lm(tmp_path)
    seen = [key for key in draws if "\ufffd" not in key[0]]
    logps = policy.logps(["the film"] * len(seen), [text for text, _ in seen], [end for _, end in seen])[:, 0]
    expected = logps.double().exp() * 6000
    found = torch.tensor([draws[key] for key in seen])
    often = expected > 10
    assert often.sum() > 50
    # Pearson's statistic, 1 on average
    assert ((found - expected) ** 2 / expected)[often].mean() < 1.6
