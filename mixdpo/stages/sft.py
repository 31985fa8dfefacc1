"""`mixdpo sft`: validated reviews → data/sft, a plain Hugging Face causal LM with its tokenizer."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from mixdpo.compute import prepare_compute
from mixdpo.config import Params
from mixdpo.config.models import PretrainedPolicy
from mixdpo.data.schema import REVIEWS, read_table
from mixdpo.files import code_digests, digest, directory_digest, file_digest, replacing, write_json
from mixdpo.layout import Layout
from mixdpo.policy.loading import load_causal_lm
from mixdpo.training.sft import fine_tune
from mixdpo.training.tokenizer import new_causal_lm, train_bpe


def run(params: Params, layout: Layout) -> list[Path]:
    """Fine-tune the configured base on the training reviews."""
    compute = prepare_compute(params.compute)
    table = read_table(layout.validated("reviews"), REVIEWS)
    texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for text, split in zip(table["text"].to_pylist(), table["split"].to_pylist(), strict=True):
        texts[split].append(text)
    base = params.sft.base
    if base.kind == "config":
        tokenizer = train_bpe(texts["train"], base.vocabulary, base.context)
        model = new_causal_lm(base, tokenizer, params.seed)
    else:
        model, tokenizer = load_causal_lm(_source(base, params, layout), base.revision)
    work = layout.work("sft", _key(params, layout))
    result = fine_tune(
        model, tokenizer, texts["train"], texts["validation"], params.sft, params.seed, *compute, checkpoint=work
    )
    with replacing(layout.sft) as target:
        model.cpu().save_pretrained(target)
        tokenizer.save_pretrained(target)
    write_json(
        layout.metrics("sft"),
        {
            "schema": 1,
            "reviews": {split: len(rows) for split, rows in texts.items()},
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "vocabulary": len(tokenizer),
            "steps": result.steps,
            "train_tokens": result.tokens,
            "train_loss": result.train_loss,
            "validation_loss": result.validation_loss,
            "validation_perplexity": math.exp(result.validation_loss),
        },
    )
    shutil.rmtree(work, ignore_errors=True)
    return [layout.sft, layout.metrics("sft")]


def _source(base: PretrainedPolicy, params: Params, layout: Layout) -> Path | str:
    """A directory below `inputs` where there is one of that name, else an id for the Hub."""
    local = layout.root / params.inputs / base.model
    return local if local.is_dir() else base.model


def _key(params: Params, layout: Layout) -> str:
    """Digest of everything that the fine-tuned weights depend on: values, data, and the code that trains."""
    code = code_digests("policy", "training")
    reviews = file_digest(layout.validated("reviews"))
    base = params.sft.base
    source = _source(base, params, layout) if base.kind == "pretrained" else None
    start = directory_digest(source) if isinstance(source, Path) else source
    return digest([params.sft.model_dump(), params.seed, params.compute.model_dump(), reviews, code, start])
