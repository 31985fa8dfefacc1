"""Stage `evaluate`: held-out preferences, judged samples and specialisation of every policy, in figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mixdpo.compute import prepare_compute
from mixdpo.config import Params
from mixdpo.config.data import AnnotatedPairs, EmbeddedSource
from mixdpo.data.schema import CANDIDATES, PREFERENCES, read_table
from mixdpo.evaluation.heldout import HeldOut, heldout_prompts, judge_pairs
from mixdpo.evaluation.judged import ROLES, score
from mixdpo.evaluation.measure import (
    BASELINE,
    Opinion,
    preference_part,
    reward_part,
    specialisation_part,
    styles_part,
)
from mixdpo.evaluation.samples import Prompts, Samples, draw, sampling_seed
from mixdpo.evaluation.statistics import Bootstrap
from mixdpo.evaluation.tables import pairs_table, responsibilities_table, samples_table
from mixdpo.files import replacing, write_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.rewards.model import RewardModel

SFT = "sft"


def run(params: Params, layout: Layout) -> list[Path]:
    """Evaluate sft and every policy of params.policies.

    Returns:
        data/evaluation (samples, responsibilities and pairs as Parquet) and metrics/evaluation.json.

    Raises:
        DataError: there are no held-out pairs or prompts. ModelError: a policy or reward model does not fit.
    """
    pairs = HeldOut.of(read_table(layout.validated("preferences"), PREFERENCES))
    found = heldout_prompts(
        params.preferences, read_table(layout.validated("scores"), CANDIDATES), pairs, params.candidates.prompts.test
    )
    prompts = Prompts.repeated(found, params.evaluation.samples_per_prompt)
    samples: dict[str, Samples] = {}
    opinions: dict[str, Opinion] = {}
    for name, policy in _policies(params, layout):
        samples[name] = draw(name, policy, prompts, params.candidates, sampling_seed(params.seed))
        if name != SFT:
            opinions[name] = Opinion.of(judge_pairs(name, policy, pairs), pairs)
    for dimension in params.rewards.dimensions:
        for role in ROLES:
            model = RewardModel.load(layout.reward_model(dimension, role))
            score(list(samples.values()), prompts, role, dimension, model, params.rewards.batch_tokens)
    with replacing(layout.evaluation) as target:
        target.mkdir(parents=True)
        pq.write_table(samples_table(list(samples.values()), prompts), target / "samples.parquet", compression="zstd")
        pq.write_table(pairs_table(opinions, pairs), target / "pairs.parquet", compression="zstd")
        rows = responsibilities_table(opinions, pairs)
        pq.write_table(rows, target / "responsibilities.parquet", compression="zstd")
    metrics = layout.metrics("evaluation")
    write_json(metrics, _figures(params, samples, opinions, pairs, prompts))
    return [layout.evaluation, metrics]


def _policies(params: Params, layout: Layout) -> Iterator[tuple[str, MixturePolicy]]:
    """One policy at a time, so that only one is in memory."""
    compute = prepare_compute(params.compute)
    for name in (SFT, *params.policies):
        if name == SFT:
            policy = MixturePolicy.from_causal_lm(layout.sft)
        else:
            policy = MixturePolicy.from_pretrained(layout.policy(name))
        policy.to(compute.device)
        policy.precision = compute.precision
        yield name, policy


def _figures(
    params: Params, samples: dict[str, Samples], opinions: dict[str, Opinion], pairs: HeldOut, prompts: Prompts
) -> dict[str, Any]:
    """The content of metrics/evaluation.json."""
    bootstrap = Bootstrap(params.evaluation.bootstrap, params.seed)
    baselines = {name: samples[name] for name in (SFT, BASELINE) if name in samples}
    specialisation = {name: specialisation_part(own, pairs) for name, own in opinions.items()}
    annotated = isinstance(params.preferences.source, AnnotatedPairs)
    everything = list(samples.values())
    return {
        "schema": 1,
        "seed": params.seed,
        "level": bootstrap.level,
        "pairs": len(pairs),
        "annotators": int(pairs.groups.max()) + 1,
        "prompts": len(set(prompts.ids)),
        "samples_per_prompt": prompts.samples,
        "dimensions": list(params.rewards.dimensions),
        "policies": {
            name: {
                "experts": each.experts,
                "preference": preference_part(name, opinions, pairs, bootstrap) if name in opinions else None,
                "specialisation": specialisation.get(name),
                **reward_part(each, baselines, prompts, bootstrap),
            }
            for name, each in samples.items()
        },
        "styles": styles_part(params.preferences.styles, samples, opinions, specialisation, pairs, prompts, bootstrap)
        if annotated
        else None,
        "truth": _truth(everything, prompts, bootstrap) if isinstance(params.source, EmbeddedSource) else None,
    }


def _truth(samples: list[Samples], prompts: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    from mixdpo.evaluation.truth import measure, truth_table

    return truth_table(samples, measure(samples, prompts), prompts, bootstrap)
