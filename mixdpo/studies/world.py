"""What all trainings of a study share: scored candidates, and what the reference thinks of them, computed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mixdpo.compute import Compute, prepare_compute
from mixdpo.config import Params
from mixdpo.config.data import AnnotatedPairs
from mixdpo.data.schema import read_table, scores_schema, text_id, write_table
from mixdpo.errors import ConfigError
from mixdpo.evaluation.statistics import Floats
from mixdpo.files import code_digests, digest, replacing
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.policy.loading import load_causal_lm
from mixdpo.rewards.model import RewardModel
from mixdpo.studies.cache import world_key
from mixdpo.studies.crossed_openings import openings


@dataclass
class World:
    """The pipeline's outputs up to `validate-scores`, in memory.

    Attributes:
        candidates: scored by the annotating reward models.
        judged: (N, dimensions) scores of the same candidates by the judges.
        logps: (N,) of the candidates under the reference, nats.
        features: (prompts, width) of the different prompts, in order of first appearance.
    """

    params: Params
    layout: Layout
    compute: Compute
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    candidates: pa.Table
    judged: Floats
    logps: Floats
    features: Tensor
    crossed: dict[int, pa.Table] = field(default_factory=dict)

    @classmethod
    def load(cls, params: Params, layout: Layout) -> World:
        """Read what the pipeline left; log-probs, features and the judges' scores are kept beside the figures.

        Raises:
            ConfigError: the project reads ready preferences, which cannot be labelled anew.
            DataError: a stage that studies build on has not run.
        """
        if not isinstance(params.preferences.source, AnnotatedPairs):
            raise ConfigError(
                "studies label pairs themselves, but preferences.source reads ready ones; use a profile whose source "
                "is annotated, such as demo"
            )
        compute = prepare_compute(params.compute)
        candidates = read_table(layout.validated("scores"), scores_schema(list(params.rewards.dimensions)))
        model, tokenizer = load_causal_lm(layout.sft)
        path = layout.study_cache / f"world-{_key(params, layout)}.safetensors"
        if not path.is_file():
            _keep(path, _views(params, layout, compute, candidates))
        views = load_file(path)
        features = torch.from_numpy(views["features"])
        return cls(params, layout, compute, model, tokenizer, candidates, views["judged"], views["logps"], features)

    @property
    def dimensions(self) -> tuple[str, ...]:
        return tuple(self.params.rewards.dimensions)

    def new_model(self) -> PreTrainedModel:
        """The reference policy, to be taken over by a mixture."""
        return copy.deepcopy(self.model)

    def logp(self, prompt: str, completion: str, finished: bool) -> float:
        """Of one candidate under the reference, nats."""
        return self._logps[prompt, completion, finished]

    def prompt_features(self, prompts: Sequence[str]) -> Tensor:
        """(prompts, width) under the reference."""
        return self.features[[self._places[prompt] for prompt in prompts]]

    @cached_property
    def _logps(self) -> dict[tuple[str, str, bool], float]:
        return dict(zip(zip(*_columns(self.candidates), strict=True), self.logps.tolist(), strict=True))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {prompt: place for place, prompt in enumerate(dict.fromkeys(self.candidates["prompt"].to_pylist()))}

    def crossed_candidates(self, each: int) -> pa.Table:
        """Scored candidates of openings with own and with crossed language, as one test split.

        A column `language` says which; `domain` is what the opening is about.
        """
        if each not in self.crossed:
            path = self.layout.study_cache / f"crossed-{each}-{_key(self.params, self.layout)}.parquet"
            schema = scores_schema(self.dimensions).append(pa.field("language", pa.string()))
            if not path.is_file():
                write_table(path, _complete(self, each), schema)
            self.crossed[each] = read_table(path, schema)
            self._know(self.crossed[each])
        return self.crossed[each]

    def _know(self, candidates: pa.Table) -> None:
        """Take further candidates among those whose log-probs and features are known."""
        policy, columns = _reference(self.layout, self.compute), _columns(candidates)
        prompts = list(dict.fromkeys(columns[0]))
        features = policy.prompt_features(prompts).cpu()
        self._logps.update(zip(zip(*columns, strict=True), policy.reference_logps(*columns).tolist(), strict=True))
        self._places.update({prompt: len(self.features) + place for place, prompt in enumerate(prompts)})
        self.features = torch.cat([self.features, features])


def _key(params: Params, layout: Layout) -> str:
    return digest([world_key(params, layout), code_digests("policy", "rewards")])[:16]


def _keep(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary:
        save_file(arrays, temporary)


def _views(params: Params, layout: Layout, compute: Compute, candidates: pa.Table) -> dict[str, np.ndarray]:
    policy = _reference(layout, compute)
    prompts, completions, finished = _columns(candidates)
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    return {
        "logps": policy.reference_logps(prompts, completions, finished).double().cpu().numpy(),
        "features": policy.prompt_features(list(dict.fromkeys(prompts))).cpu().numpy(),
        "judged": np.column_stack(_scores(params, layout, compute, texts, "judge")),
    }


def _columns(candidates: pa.Table) -> list[list[Any]]:
    """Prompts, completions, and whether each ended by itself."""
    return [candidates[name].to_pylist() for name in ("prompt", "completion", "finished")]


def _reference(layout: Layout, compute: Compute) -> MixturePolicy:
    policy = MixturePolicy.from_causal_lm(layout.sft).to(compute.device)
    policy.precision = compute.precision
    return policy


def _scores(params: Params, layout: Layout, compute: Compute, texts: Sequence[str], role: str) -> list[Floats]:
    """Scores of each dimension's reward model in [0, 1], (texts,) each."""
    return [
        RewardModel.load(layout.reward_model(dimension, role), compute).score(
            texts, params.rewards.batch_tokens, what=f"{role}s' {dimension}"
        )
        for dimension in params.rewards.dimensions
    ]


def _complete(world: World, each: int) -> list[dict[str, Any]]:
    """Rows of candidates as the pipeline makes them, for generated openings."""
    params, settings = world.params, world.params.candidates
    asked = [
        opening for opening in openings(each, settings.prompt_words, params.seed) for _ in range(settings.per_prompt)
    ]
    written = _reference(world.layout, world.compute).generate(
        [opening.text for opening in asked],
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=params.seed,
        batch=settings.batch,
    )
    texts = [opening.text + text for opening, text in zip(asked, written.texts, strict=True)]
    scores = zip(*_scores(params, world.layout, world.compute, texts, "annotator"), strict=True)
    rows = []
    for place, (opening, text, finished, values) in enumerate(
        zip(asked, written.texts, written.finished, scores, strict=True)
    ):
        if not text.strip() and not finished:
            continue
        rows.append(
            {
                "candidate_id": f"crossed-{place}",
                "prompt_id": text_id(opening.text),
                "prompt": opening.text,
                "completion": text,
                "finished": finished,
                "domain": opening.subject,
                "language": opening.language,
                "split": "test",
            }
            | {name: float(value) for name, value in zip(world.dimensions, values, strict=True)}
        )
    return rows


def with_language(table: pa.Table, crossed: bool) -> pa.Table:
    """The candidates whose language is that of the other domain, or is not; without the column."""
    same = pc.equal(table["domain"], table["language"])
    return table.filter(pc.invert(same) if crossed else same).drop_columns(["language"])
