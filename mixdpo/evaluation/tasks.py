"""Policies asked about held-out rows, and reward models about what they write, shard by shard on an engine.

R rows, K experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mixdpo.compute import prepare_compute
from mixdpo.engine import Engine, map_shards, read_shards, slices
from mixdpo.evaluation.heldout import JUDGED, HeldOut, judge_pairs
from mixdpo.evaluation.preference import Judgement
from mixdpo.evaluation.samples import Prompts, Samples, draw
from mixdpo.evaluation.statistics import Floats
from mixdpo.files import digest, directory_digest
from mixdpo.policy import MixturePolicy
from mixdpo.rewards.annotation import TEXTS, Annotation

if TYPE_CHECKING:
    from mixdpo.config.models import Candidates, Device

PAIRS = 16384  # a shard
PROMPTS = 1024  # a shard
WRITTEN = 8192  # different texts a shard


@dataclass(frozen=True)
class Source:
    """A policy: the directory of a mixture, or of a causal language model alone."""

    name: str
    directory: Path
    content: str  # digest of the directory
    mixture: bool
    compute: Device

    def load(self) -> MixturePolicy:
        """Raises ModelError where the directory is no such thing."""
        device, precision = prepare_compute(self.compute)
        read = MixturePolicy.from_pretrained if self.mixture else MixturePolicy.from_causal_lm
        policy = read(self.directory).to(device)
        policy.precision = precision
        return policy


@dataclass(frozen=True)
class Judge:
    """What a policy thinks of pairs: `judge_pairs`."""

    source: Source

    def load(self) -> Callable[[pa.Table], pa.Table]:
        return partial(_judge, self.source.load())


@dataclass(frozen=True)
class Draw:
    """What every expert of a policy writes: `draw`."""

    source: Source
    settings: Candidates
    seed: int

    def load(self) -> Callable[[pa.Table], pa.Table]:
        return partial(_draw, self, self.source.load())


def judgement_of(engine: Engine, task: Judge, pairs: HeldOut, work: Path) -> Judgement:
    """Ask one policy about all pairs; `work` keeps finished shards, the policy itself is in their names."""
    source = task.source
    rows = pa.table({name: pa.array(pairs.columns[name]) for name in JUDGED})
    what = f"held-out pairs under {source.name}"
    answers = read_shards(map_shards(engine, task, slices(rows, PAIRS), work / f"pairs-{source.content[:16]}", what))
    return Judgement(_array(answers, "margins"), _array(answers, "log_weights"), answers["latent"][0].as_py())


def _judge(policy: MixturePolicy, rows: pa.Table) -> pa.Table:
    judgement = judge_pairs(policy, rows.to_pydict())
    margins, log_weights = _lists(judgement.margins), _lists(judgement.log_weights)
    latent = pa.array([judgement.latent] * rows.num_rows)
    return pa.table({"margins": margins, "log_weights": log_weights, "latent": latent})


def samples_of(engine: Engine, task: Draw, prompts: Prompts, work: Path) -> Samples:
    """Let one policy complete all prompts; `work` keeps finished shards, the policy itself is in their names."""
    source = task.source
    columns = {"prompt_id": prompts.ids, "prompt": prompts.texts, "domain": prompts.domains}
    rows = pa.table({"place": range(len(prompts)), **columns})
    what = f"samples of {source.name}"
    paths = map_shards(engine, task, slices(rows, PROMPTS), work / f"samples-{source.content[:16]}", what)
    answers = read_shards(paths)
    weights = _array(answers, "weights")
    experts = weights.shape[1]
    return Samples(
        policy=source.name,
        weights=weights,
        completions=_transposed(answers["completions"].to_pylist()),
        finished=_transposed(answers["finished"].to_pylist()),
        logps=_array(answers, "logps").reshape(-1, experts, experts),
        reference_logps=_array(answers, "reference_logps"),
    )


def _draw(task: Draw, policy: MixturePolicy, rows: pa.Table) -> pa.Table:
    ids, texts, domains = (rows[name].to_pylist() for name in ("prompt_id", "prompt", "domain"))
    prompts = Prompts(ids, texts, domains, samples=1)
    drawn = draw(task.source.name, policy, prompts, task.settings, task.seed, first=rows["place"][0].as_py())
    return pa.table(
        {
            "weights": _lists(drawn.weights),
            "completions": _transposed(drawn.completions),
            "finished": _transposed(drawn.finished),
            "logps": _lists(drawn.logps),
            "reference_logps": _lists(drawn.reference_logps),
        }
    )


def scores_of(engine: Engine, task: Annotation, texts: Sequence[tuple[str, str]], work: Path) -> dict[str, Floats]:
    """Scores in [0, 1] of (prompt, completion) by each model of `task`: (texts,) by the models' names.

    Equal texts are read once, so policies that write the same are judged the same, to the last digit.
    """
    places = {pair: place for place, pair in enumerate(dict.fromkeys(texts))}
    columns = zip(*places, strict=True)
    rows = pa.table([pa.array(column) for column in columns], schema=TEXTS)
    models = digest([(name, directory_digest(directory)) for name, directory in task.models])
    answers = read_shards(map_shards(engine, task, slices(rows, WRITTEN), work / f"scores-{models[:16]}", "judging"))
    back = [places[pair] for pair in texts]
    return {name: answers[name].to_numpy()[back] for name in answers.column_names}


def _transposed(lists: list[list]) -> list[list]:
    return [list(row) for row in zip(*lists, strict=True)]


def _lists(values: Floats) -> pa.Array:
    """A row's numbers as one list."""
    rows = np.ascontiguousarray(values).reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel(), pa.float64()), rows.shape[1])


def _array(answers: pa.Table, column: str) -> Floats:
    """(R, numbers a row); a copy, since Arrow's own cannot be written to and torch wants to."""
    lists = answers[column].combine_chunks()
    return np.array(lists.flatten().to_numpy()).reshape(len(lists), -1)
