"""What the interpreter of vLLM's own environment runs (vllm_writer.py): standard library and vLLM alone, no mixdpo.

A line of JSON each way: first the engine's settings, which `{"version": …}` answers, then shards of prompts as token
ids. An error is answered by `{"error": …}` before this process ends by it; it also ends when nobody asks any more.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    # whatever vLLM prints belongs to the log
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        settings = json.loads(sys.stdin.readline())
        import vllm

        engine = vllm.LLM(**settings, skip_tokenizer_init=True, generation_config="vllm")
        answer({"version": vllm.__version__})
        for line in sys.stdin:
            answer({"completions": complete(engine, **json.loads(line))})
    except BaseException as error:
        answer({"error": f"{type(error).__name__}: {error}"})
        raise


def complete(
    engine: Any, prompts: list[list[int]], seeds: list[int], end: int | None, **sampling: Any
) -> list[list[int]]:
    """Token ids after each prompt, the end of text among them where it came.

    Args:
        seeds: one a row, so that a row's draws are its own.
        sampling: temperature, top_p and max_tokens of all.
    """
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    stop = [] if end is None else [end]
    each = [
        SamplingParams(**sampling, seed=seed, stop_token_ids=stop, ignore_eos=True, detokenize=False) for seed in seeds
    ]
    rows = engine.generate([TokensPrompt(prompt_token_ids=row) for row in prompts], each, use_tqdm=False)
    return [list(row.outputs[0].token_ids) for row in rows]


if __name__ == "__main__":
    main()
