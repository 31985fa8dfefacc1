"""vLLM as the writer of candidates, in a process and a Python environment of its own (docs/decisions/0009-vllm.md)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from transformers import AutoConfig, AutoTokenizer

from mixdpo.candidates import vllm_worker
from mixdpo.errors import ConfigError, ModelError
from mixdpo.hub import first_line
from mixdpo.policy.sampling import refuse_cut
from mixdpo.policy.tokens import encode_prompts

if TYPE_CHECKING:
    from mixdpo.config.models import Candidates, Device, Vllm

INSTALL = "python -m venv DIRECTORY && DIRECTORY/bin/pip install vllm"
SECONDS = 60.0  # for an engine to end


class VllmWriter:
    """One causal model of a directory under vLLM; tokens go in and out, so that texts are cut and joined here.

    Raises:
        ConfigError: no interpreter where `candidates.vllm.python` says, or one without vLLM.
        ModelError: no causal language model, or none that vLLM runs.
    """

    def __init__(self, model: Path, settings: Candidates, vllm: Vllm, compute: Device, seed: int) -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)
            config = AutoConfig.from_pretrained(str(model), trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{model}: no language model that transformers can read ({first_line(error)}); run `mixdpo sft`"
            ) from error
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self.settings = settings
        self.seed = seed
        self.python = vllm.python
        self.process = _start(vllm.python)
        self._end = finalize(self, _end, self.process)
        self._ask(
            model=str(model),
            dtype=compute.dtype,
            max_num_seqs=settings.batch,
            tensor_parallel_size=vllm.gpus,
            gpu_memory_utilization=vllm.memory,
        )

    def write(self, prompts: Sequence[str], first: int) -> tuple[list[str], list[bool]]:
        """See `Writer.write`; what a row gets is its own up to rounding, which vLLM lets depend on its company."""
        if not prompts:
            return [], []
        ids = encode_prompts(self.tokenizer, prompts)
        refuse_cut(ids, self.settings.max_new_tokens, self.context)
        end = self.tokenizer.eos_token_id
        rows: list[list[int]] = self._ask(
            prompts=ids,
            seeds=[row_seed(self.seed, first + row) for row in range(len(ids))],
            end=end,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            max_tokens=self.settings.max_new_tokens,
        )["completions"]
        finished = [bool(row) and row[-1] == end for row in rows]
        kept = [row[:-1] if over else row for row, over in zip(rows, finished, strict=True)]
        return self.tokenizer.batch_decode(kept), finished

    def _ask(self, **message: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # its last answer says why, or there is none
            print(json.dumps(message), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "error" not in answer and line:
            return answer
        self._end()
        if "No module named 'vllm'" in answer.get("error", ""):
            raise ConfigError(
                f"candidates.vllm.python is {self.python}, which has no package vllm; install it in an environment of "
                f"its own ({INSTALL}) and name its interpreter, or leave candidates.vllm out to write without it"
            )
        said = answer.get("error", f"it ended with exit code {self.process.returncode} and no answer")
        raise ModelError(
            f"vLLM of {self.python} did not write candidates: {said}. Its own messages are above; leave "
            f"candidates.vllm out of params.yaml to write without it"
        )


def row_seed(seed: int, place: int) -> int:
    """63 bits for the row at this place among all rows of one drawing."""
    return int.from_bytes(blake2b(f"{seed} {place}".encode(), digest_size=8).digest(), "big") >> 1


def _start(python: str) -> subprocess.Popen[str]:
    # this process's own environment is not that of vLLM's interpreter
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    # one process schedules and runs: the same requests are then run in the same batches
    environment = {"VLLM_LOGGING_LEVEL": "ERROR", **inherited, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    try:
        return subprocess.Popen(
            [python, "-I", vllm_worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
        )
    except OSError as error:
        raise ConfigError(
            f"candidates.vllm.python is {python}, which cannot be run ({error.strerror}); name the interpreter of an "
            f"environment with vLLM ({INSTALL}), or leave candidates.vllm out to write without it"
        ) from error


def _end(process: subprocess.Popen[str]) -> None:
    """Ask no more, and wait."""
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):  # it has ended before
            if pipe is not None:
                pipe.close()
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
