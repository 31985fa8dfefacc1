"""Sections about the run that led to the evaluation: training, reward models, validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixdpo.evaluation.content import Link, Picture, Section, Table, number


def training(summaries: Mapping[str, Mapping[str, Any]]) -> Section:
    """From metrics/train-NAME.json of each policy; what the health check found stands first."""
    findings = [
        [name, finding["name"], finding["message"]]
        for name, found in summaries.items()
        for finding in found["findings"]
    ]
    tables = [Table("Findings to act on", ["policy", "finding", "what it means"], findings)] if findings else []
    rows = [
        [
            name,
            str(found["experts"]),
            found["weights"],
            found["latent"],
            f"{found['steps']:,}",
            f"{found['pairs']:,}",
            f"{found['annotators']:,}",
            number(found["validation_marginal"]),
        ]
        for name, found in summaries.items()
    ]
    header = ["policy", "experts", "weights", "latent", "steps", "pairs", "annotators", "validation (nats a pair)"]
    text = (
        "Training saw no style. With the annotator as latent, likelihoods are of all that one annotator said together."
    )
    return Section(
        "Training",
        text if findings else f"{text} The health check found nothing wrong.",
        [*tables, Table("Runs", header, rows)],
        [Picture("training.png", "Likelihood, bound and entropy of responsibilities over the steps of training.")],
    )


def validation(verdicts: Mapping[str, Mapping[str, Any]], pages: Mapping[str, str]) -> Section:
    """From metrics/validation-TABLE.json; `pages` holds the link to each table's page."""
    rows = [
        [
            name,
            "passed" if found["passed"] else "stopped",
            f"{found['rows']:,}",
            f"{found['accepted']:,}",
            f"{found['quarantined']:,}",
        ]
        for name, found in verdicts.items()
    ]
    return Section(
        "Validation",
        "What the gates let through. Rows put aside are in data/quarantine with their reasons.",
        [Table("Tables", ["table", "gate", "rows read", "accepted", "in quarantine"], rows)],
        links=[Link(f"Validation of {name}", pages[name]) for name in verdicts],
    )


def reward_models(metrics: Mapping[str, Any], dimensions: Sequence[str]) -> Section:
    """From metrics/rewards.json: {dimension: {role: figures}}, at its top or under `dimensions`."""
    models = metrics.get("dimensions", metrics)
    figures = {
        f"{dimension}, {role}": {name: value for name, value in models[dimension][role].items() if _is_figure(value)}
        for dimension in dimensions
        for role in ("annotator", "judge")
    }
    columns = list(dict.fromkeys(name for own in figures.values() for name in own))
    rows = [
        [name, *(_figure(own[column]) if column in own else "–" for column in columns)] for name, own in figures.items()
    ]
    return Section(
        "Reward models",
        "Measured on held-out data. Annotators' models label the pairs, judges only evaluate; each learnt from data that "
        "the other never saw.",
        [Table("Quality", ["model", *(column.replace("_", " ") for column in columns)], rows)],
    )


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else number(value)
