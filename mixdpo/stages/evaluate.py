"""Stage `evaluate`: held-out preferences, judged samples and specialisation of every policy, in figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mixdpo.compute import Compute, prepare_compute
from mixdpo.config import Params
from mixdpo.config.data import AnnotatedPairs, EmbeddedSource
from mixdpo.data.schema import CANDIDATES, PREFERENCES, read_table
from mixdpo.evaluation.heldout import HeldOut, heldout_prompts, judge_pairs
from mixdpo.evaluation.judged import ROLES, score
from mixdpo.evaluation.measure import SFT, Opinion, evaluation_figures
from mixdpo.evaluation.preference import History, Judgement
from mixdpo.evaluation.samples import Prompts, Samples, draw, sampling_seed
from mixdpo.evaluation.statistics import Bootstrap
from mixdpo.evaluation.tables import pairs_table, responsibilities_table, samples_table
from mixdpo.files import replacing, write_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.rewards.model import RewardModel


def run(params: Params, layout: Layout) -> list[Path]:
    """Evaluate sft and every policy of params.policies.

    Returns:
        data/evaluation (samples, responsibilities and pairs as Parquet) and metrics/evaluation.json.

    Raises:
        DataError: there are no held-out pairs or prompts. ModelError: a policy or reward model does not fit.
    """
    preferences = read_table(layout.validated("preferences"), PREFERENCES)
    pairs = HeldOut.of(preferences)
    earlier = HeldOut.earlier(preferences, pairs)
    found = heldout_prompts(
        params.preferences, read_table(layout.validated("scores"), CANDIDATES), pairs, params.candidates.prompts.test
    )
    prompts = Prompts.repeated(found, params.evaluation.samples_per_prompt)
    samples: dict[str, Samples] = {}
    opinions: dict[str, Opinion] = {}
    compute = prepare_compute(params.compute)
    for name, policy in _policies(params, layout, compute):
        samples[name] = draw(name, policy, prompts, params.candidates, sampling_seed(params.seed))
        if name != SFT:
            judgement = judge_pairs(name, policy, pairs)
            opinions[name] = Opinion.of(judgement, pairs, _history(name, policy, judgement, pairs, earlier))
    for dimension in params.rewards.dimensions:
        for role in ROLES:
            model = RewardModel.load(layout.reward_model(dimension, role), compute)
            score(list(samples.values()), prompts, role, dimension, model, params.rewards.batch_tokens)
    bootstrap = Bootstrap(params.evaluation.bootstrap, params.seed)
    annotated = isinstance(params.preferences.source, AnnotatedPairs)
    styles = params.preferences.styles if annotated else None
    figures = evaluation_figures(samples, opinions, pairs, prompts, styles, bootstrap)
    if annotated and isinstance(params.source, EmbeddedSource):
        figures["truth"] = _truth(list(samples.values()), prompts, bootstrap)
    with replacing(layout.evaluation) as target:
        target.mkdir(parents=True)
        pq.write_table(samples_table(list(samples.values()), prompts), target / "samples.parquet", compression="zstd")
        pq.write_table(pairs_table(opinions, pairs), target / "pairs.parquet", compression="zstd")
        rows = responsibilities_table(opinions, pairs)
        pq.write_table(rows, target / "responsibilities.parquet", compression="zstd")
    metrics = layout.metrics("evaluation")
    write_json(metrics, figures)
    return [layout.evaluation, metrics]


def _policies(params: Params, layout: Layout, compute: Compute) -> Iterator[tuple[str, MixturePolicy]]:
    """One policy at a time, so that only one is in memory."""
    for name in (SFT, *params.policies):
        if name == SFT:
            policy = MixturePolicy.from_causal_lm(layout.sft)
        else:
            policy = MixturePolicy.from_pretrained(layout.policy(name))
        policy.to(compute.device)
        policy.precision = compute.precision
        yield name, policy


def _history(
    name: str, policy: MixturePolicy, judgement: Judgement, pairs: HeldOut, earlier: HeldOut | None
) -> History | None:
    """What returning annotators said in training; empty where the weights know them, for they learnt it then."""
    if earlier is None:
        return None
    if policy.weighting.annotators is not None:
        return History.none(judgement)
    return History.of(judge_pairs(name, policy, earlier), earlier.annotators, pairs.annotators)


def _truth(samples: list[Samples], prompts: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    from mixdpo.evaluation.truth import measure, truth_table

    return truth_table(samples, measure(samples, prompts), prompts, bootstrap)
