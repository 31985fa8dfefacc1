"""Sections about the run that led to the evaluation: training, reward models, validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixdpo.evaluation.content import Link, Picture, Section, Table
from mixdpo.evaluation.markdown import number

ROLES = ("annotator", "judge")


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
    """From metrics/rewards.json."""
    models = metrics["dimensions"]
    quality = {f"{dimension}, {role}": models[dimension][role] for dimension in dimensions for role in ROLES}
    alike = {dimension: models[dimension]["agreement"] for dimension in dimensions}
    return Section(
        "Reward models",
        "Measured on held-out data. Annotators' models label the pairs, judges only evaluate; each learnt from data "
        "that the other never saw.",
        [_figures("Quality", "model", quality), _figures("Agreement of annotator and judge", "dimension", alike)],
    )


def _figures(caption: str, first: str, rows: Mapping[str, Mapping[str, float | None]]) -> Table:
    """A row a name, a column for every figure that any of them has."""
    columns = list(dict.fromkeys(column for own in rows.values() for column in own))
    header = [first, *(column.replace("_", " ") for column in columns)]
    return Table(
        caption, header, [[name, *(_figure(own.get(column)) for column in columns)] for name, own in rows.items()]
    )


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else number(value)
