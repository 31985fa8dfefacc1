"""The summary table of an evaluation in Markdown: what a workflow publishes and a person reads first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number with a true minus sign; what rounds to zero has none."""
    rounded = round(value, digits) + 0.0  # −0.0 + 0.0 is 0.0
    return f"{rounded:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(value: Mapping[str, float] | None, digits: int = 3, sign: bool = False) -> str:
    """`0.713 [0.700, 0.725]`, or a dash where there is none."""
    if value is None:
        return "–"
    mean, low, high = (number(value[part], digits, sign) for part in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def in_order(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The policies as people compare them: sft, then few experts before many. JSON files sort them by name."""
    policies = metrics["policies"]
    order = sorted(policies, key=lambda name: (name != "sft", policies[name]["experts"], name))
    return {name: policies[name] for name in order}


MARKUP = re.compile(r"([\\`*_{}<>#|~])")


def line(value: object) -> str:
    """Text in one line that is not taken for markup and cannot end a table's cell: a model writes anything."""
    return MARKUP.sub(r"\\\1", " ".join(str(value).split())).replace("](", "]\\(")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; first column left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line(value) for value in row) + " |" for row in lines)


def recovered(policy: Mapping[str, Any]) -> float | None:
    """NMI of the experts against the annotators' styles, for the latent the policy was trained with."""
    found = policy["specialisation"]
    if found is None:
        return None
    part = found["annotators" if found["latent"] == "annotator" else "pairs"]
    return None if part is None else float(part["nmi"])


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """Policy × held-out log-likelihood, accuracy, NMI and the judges' mean reward on each dimension.

    Args:
        metrics: the content of metrics/evaluation.json.
    """
    header = ["policy", "log-likelihood (nats)", "accuracy", "NMI", *metrics["dimensions"]]
    rows = []
    for name, policy in in_order(metrics).items():
        preference, nmi = policy["preference"], recovered(policy)
        rows.append(
            [
                name,
                interval(preference and preference["log_likelihood"]),
                interval(preference and preference["accuracy"]),
                "–" if nmi is None else number(nmi, 2),
                *(interval(policy["rewards"]["judge"][dimension]) for dimension in metrics["dimensions"]),
            ]
        )
    return table(header, rows)
