"""Putting one evaluation together: from what policies think and write to the figures of metrics/evaluation.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mixdpo.config.data import Style
from mixdpo.evaluation.cost import expert_cost, mixture_cost
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.judged import expert_rewards, reward_table
from mixdpo.evaluation.preference import (
    History,
    Judgement,
    by_style,
    log_predictive,
    log_sigmoid,
    preference_difference,
    preference_metrics,
    worst,
)
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.served import COMPARISONS, Held, Taste, evidence_after, served
from mixdpo.evaluation.specialisation import latent_use, margin_spread, recovery, routing
from mixdpo.evaluation.statistics import Bootstrap, Floats
from mixdpo.objective import responsibilities

SFT = "sft"
BASELINE = "dpo"


@dataclass(frozen=True)
class Opinion:
    """One policy on the held-out pairs, everything that several parts of the evaluation need.

    Attributes:
        known: (B,) nats: log p of each label given the annotator's other labels.
        stranger: (B,) nats: with no label of the annotator known.
        returning: (B,) nats: as `known`, and with their labels in training; None where nobody labelled in training.
        pair_q, annotator_q: (B, K) exact posteriors, with one latent a pair and one an annotator.
    """

    judgement: Judgement
    known: Floats
    stranger: Floats
    pair_q: Floats
    annotator_q: Floats
    returning: Floats | None = None

    @classmethod
    def of(cls, judgement: Judgement, pairs: HeldOut, history: History | None = None) -> Opinion:
        margins, log_weights = torch.from_numpy(judgement.margins), torch.from_numpy(judgement.log_weights)
        return cls(
            judgement,
            log_predictive(judgement, pairs.groups),
            log_predictive(judgement, pairs.groups, comparisons=0),
            responsibilities(margins, log_weights).numpy(),
            responsibilities(margins, log_weights, groups=torch.from_numpy(pairs.groups)).numpy(),
            None if history is None else log_predictive(judgement, pairs.groups, history=history),
        )

    @property
    def q(self) -> Floats:
        """(B, K) under the policy's own latent."""
        return self.annotator_q if self.judgement.latent == "annotator" else self.pair_q


def preference_part(
    name: str,
    opinions: dict[str, Opinion],
    pairs: HeldOut,
    bootstrap: Bootstrap,
    assignment: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Held-out preference prediction of one policy, with what is known of an annotator and without.

    Args:
        assignment: the expert of each style, where styles are known: `oracle` is then the likelihood under it alone.
    """
    own, groups = opinions[name], pairs.groups
    others = np.bincount(groups) - 1
    part = preference_metrics(own.known, groups, bootstrap)
    part["stranger"] = preference_metrics(own.stranger, groups, bootstrap)
    part["few_shot"] = {
        str(m): bootstrap.mean(log_predictive(own.judgement, groups, m), groups).record()
        | {"annotators": int((others >= m).sum())}
        for m in COMPARISONS
    }
    if assignment is not None:
        known = pairs.known
        experts = np.array([assignment[style] for style in _styles(pairs, known)])
        told = log_sigmoid(own.judgement.margins)[known, experts]
        part["oracle"] = bootstrap.mean(told, groups[known]).record()
    part["by_style"] = by_style(own.known, groups, pairs.styles, bootstrap)
    part["worst_style"] = worst(part["by_style"])
    if BASELINE in opinions and name != BASELINE:
        other = opinions[BASELINE]
        part[f"minus_{BASELINE}"] = preference_difference(own.known, other.known, groups, bootstrap)
        part["stranger"][f"minus_{BASELINE}"] = preference_difference(own.stranger, other.stranger, groups, bootstrap)
    part["returning"] = _returning_part(name, opinions, pairs, bootstrap)
    return part


def _returning_part(
    name: str, opinions: dict[str, Opinion], pairs: HeldOut, bootstrap: Bootstrap
) -> dict[str, Any] | None:
    """The pairs of annotators who labelled in training too, with that known and without; None where there are none."""
    own, rows = opinions[name], pairs.returning
    if own.returning is None or not len(rows):
        return None
    groups = pairs.groups[rows]
    part = preference_metrics(own.returning[rows], groups, bootstrap)
    part["stranger"] = preference_metrics(own.stranger[rows], groups, bootstrap)
    baseline = opinions.get(BASELINE)
    if baseline is not None and baseline.returning is not None and name != BASELINE:
        part[f"minus_{BASELINE}"] = preference_difference(
            own.returning[rows], baseline.returning[rows], groups, bootstrap
        )
    return part


def specialisation_part(own: Opinion, pairs: HeldOut) -> dict[str, Any] | None:
    """How the latent is used and whether it found the styles; None with one expert, which has no latent.

    `annotators` holds recovery of one row an annotator (posterior of all its pairs), `pairs` of one row a pair; both
    are None where no style is known.
    """
    if own.judgement.margins.shape[1] == 1:
        return None
    _, first = np.unique(pairs.groups, return_index=True)
    weights = np.exp(own.judgement.log_weights)
    use = latent_use(own.q[first] if own.judgement.latent == "annotator" else own.q, weights)
    known = pairs.known
    styled = first[np.isin(first, known)]
    people = recovery(own.annotator_q[styled], _styles(pairs, styled)) if len(styled) else None
    rows = recovery(own.pair_q[known], _styles(pairs, known)) if len(known) else None
    return {
        **use,
        "latent": own.judgement.latent,
        "margin_spread": margin_spread(own.judgement.margins),
        "annotators": people,
        "pairs": rows,
        "routing": routing(
            weights[known] if people else weights,
            [pairs.domains[place] for place in known] if people else pairs.domains,
            _styles(pairs, known) if people else None,
            people["assignment"] if people else {},
        ),
    }


def _styles(pairs: HeldOut, places: NDArray[np.int64]) -> list[str]:
    return [str(pairs.styles[place]) for place in places]


def reward_part(each: Samples, baselines: dict[str, Samples], prompts: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    """Judged rewards and cost of one policy, whole and by expert."""
    # here, because it imports `evaluate`, which takes seconds
    from mixdpo.evaluation.text_metrics import text_metrics

    return {
        "rewards": reward_table(each, baselines, prompts, bootstrap),
        "cost": mixture_cost(each, prompts, bootstrap),
        "by_expert": [
            {
                "rewards": expert_rewards(each, expert, prompts, bootstrap),
                "cost": expert_cost(each, expert, prompts, bootstrap),
                "text": text_metrics(each.completions[expert]),
            }
            for expert in range(each.experts)
        ],
    }


def styles_part(
    styles: dict[str, Style],
    samples: dict[str, Samples],
    opinions: dict[str, Opinion],
    specialisation: dict[str, dict[str, Any] | None],
    pairs: HeldOut,
    prompts: Prompts,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """What an annotator of each style gets from each policy: {style: {policy: `served`}}."""
    labels = np.array(["" if style is None else style for style in pairs.styles])
    baselines = {name: samples[name] for name in (SFT, BASELINE) if name in samples}
    part: dict[str, Any] = {}
    for name, style in styles.items():
        mine = labels == name
        taste = Taste.of(style, samples[SFT])
        part[name] = {}
        for policy, each in samples.items():
            held, own = None, opinions.get(policy)
            if own is not None and each.experts > 1 and mine.any():
                judgement = Judgement(own.judgement.margins[mine], own.judgement.log_weights[mine], "annotator")
                found = specialisation[policy]
                assert found is not None
                held = Held(
                    {m: evidence_after(judgement, pairs.groups[mine], m) for m in COMPARISONS},
                    found["annotators"]["assignment"][name],
                    np.unique(pairs.groups[mine], return_counts=True)[1],
                )
            compared = {} if policy == SFT else baselines
            part[name][policy] = served(each, taste, held, compared, prompts, bootstrap)
    return part


def _assignment(specialisation: dict[str, Any] | None) -> dict[str, int] | None:
    """The expert of each style, where there is a choice of experts and styles are known."""
    people = specialisation and specialisation["annotators"]
    return people["assignment"] if people else None


def evaluation_figures(
    samples: dict[str, Samples],
    opinions: dict[str, Opinion],
    pairs: HeldOut,
    prompts: Prompts,
    styles: dict[str, Style] | None,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """The content of metrics/evaluation.json.

    Args:
        samples: of `sft` and every policy, with the scores of all reward models.
        opinions: of every policy but `sft`.
        styles: the tastes that labelled the pairs, or None where they are not known in terms of the judges.
    """
    baselines = {name: samples[name] for name in (SFT, BASELINE) if name in samples}
    specialisation = {name: specialisation_part(own, pairs) for name, own in opinions.items()}
    return {
        "schema": 1,
        "seed": bootstrap.seed,
        "level": bootstrap.level,
        "pairs": len(pairs),
        "annotators": int(pairs.groups.max()) + 1,
        "returning_annotators": len(np.unique(pairs.groups[pairs.returning])),
        "prompts": len(set(prompts.ids)),
        "samples_per_prompt": prompts.samples,
        "dimensions": list(samples[SFT].scores["judge"]),
        "policies": {
            name: {
                "experts": each.experts,
                "preference": preference_part(name, opinions, pairs, bootstrap, _assignment(specialisation[name]))
                if name in opinions
                else None,
                "specialisation": specialisation.get(name),
                **reward_part(each, {} if name == SFT else baselines, prompts, bootstrap),
            }
            for name, each in samples.items()
        },
        "styles": styles and styles_part(styles, samples, opinions, specialisation, pairs, prompts, bootstrap),
        "truth": None,
    }
