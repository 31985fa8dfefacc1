"""The rows behind the figures: what the evaluation leaves in data/evaluation for the report and for other tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:  # the report reads these tables without torch
    from mixdpo.evaluation.heldout import HeldOut
    from mixdpo.evaluation.measure import Opinion
    from mixdpo.evaluation.samples import Prompts, Samples

PAIRS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("annotator", pa.string()),
        ("style", pa.string()),
        ("domain", pa.string()),
        ("policy", pa.string()),
        ("log_predictive", pa.float64()),  # nats, given the annotator's other pairs
        ("log_stranger", pa.float64()),  # nats, given none
    ]
)
RESPONSIBILITIES = pa.schema(
    [
        ("pair_id", pa.string()),
        ("annotator", pa.string()),
        ("style", pa.string()),
        ("domain", pa.string()),
        ("policy", pa.string()),
        ("expert", pa.int64()),
        ("margin", pa.float64()),  # nats
        ("weight", pa.float64()),
        ("responsibility", pa.float64()),  # under the policy's own latent
    ]
)


def pairs_table(opinions: dict[str, Opinion], pairs: HeldOut) -> pa.Table:
    """One row a policy and pair."""
    parts = [
        _identified(pairs, name)
        .append_column("log_predictive", pa.array(own.known))
        .append_column("log_stranger", pa.array(own.stranger))
        for name, own in opinions.items()
    ]
    return pa.concat_tables(parts).select(PAIRS.names).cast(PAIRS)


def responsibilities_table(opinions: dict[str, Opinion], pairs: HeldOut) -> pa.Table:
    """One row a policy, expert and pair."""
    parts = []
    for name, own in opinions.items():
        for expert in range(own.q.shape[1]):
            part = _identified(pairs, name).append_column("expert", pa.array([expert] * len(pairs)))
            part = part.append_column("margin", pa.array(own.judgement.margins[:, expert]))
            part = part.append_column("weight", pa.array(np.exp(own.judgement.log_weights[:, expert])))
            parts.append(part.append_column("responsibility", pa.array(own.q[:, expert])))
    return pa.concat_tables(parts).select(RESPONSIBILITIES.names).cast(RESPONSIBILITIES)


def _identified(pairs: HeldOut, policy: str) -> pa.Table:
    names = ("pair_id", "annotator", "style", "domain")
    columns: dict[str, Any] = {name: pa.array(pairs.columns[name], pa.string()) for name in names}
    return pa.table({**columns, "policy": pa.array([policy] * len(pairs), pa.string())})


def samples_table(samples: list[Samples], prompts: Prompts) -> pa.Table:
    """One row a policy, expert, prompt and sample, with the scores `judge_DIMENSION` and `annotator_DIMENSION`."""
    return pa.concat_tables([_samples_of(each, expert, prompts) for each in samples for expert in range(each.experts)])


def _samples_of(each: Samples, expert: int, prompts: Prompts) -> pa.Table:
    rows = len(prompts)
    scores = {
        f"{role}_{dimension}": pa.array(values[:, expert])
        for role, dimensions in each.scores.items()
        for dimension, values in dimensions.items()
    }
    return pa.table(
        {
            "policy": pa.array([each.policy] * rows),
            "expert": pa.array([expert] * rows, pa.int64()),
            "prompt_id": pa.array(prompts.ids),
            "prompt": pa.array(prompts.texts),
            "domain": pa.array(prompts.domains),
            "sample": pa.array([row % prompts.samples for row in range(rows)], pa.int64()),
            "completion": pa.array(each.completions[expert]),
            "finished": pa.array(each.finished[expert]),
            "weight": pa.array(each.weights[:, expert]),
            "logp": pa.array(each.logps[:, expert, expert]),
            "reference_logp": pa.array(each.reference_logps[:, expert]),
            **scores,
        }
    )
