"""A study as data: its question, its grid, the columns of its table, its picture; and what its runs gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mixdpo.studies.runner import Row
from mixdpo.studies.setting import Grid, Label, Setting, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = Callable[[dict[str, Any]], float | None]


@dataclass(frozen=True)
class Column:
    """One column of a study's table: a number of a training's figures, None where it has none."""

    title: str
    value: Value
    digits: int = 3


@dataclass(frozen=True)
class Results:
    """All trainings of a study."""

    rows: Sequence[Row]

    @property
    def variants(self) -> list[Variant]:
        return list({row.variant.key: row.variant for row in self.rows}.values())

    def axis(self, name: str) -> list[Label]:
        """The values of an axis, in the order of the grid."""
        return list(dict.fromkeys(variant.labels[name] for variant in self.variants))

    def of(self, /, **labels: Label) -> list[Row]:
        """The rows with all these labels, one a seed where the labels name a variant."""
        return [
            row for row in self.rows if all(row.variant.labels.get(axis) == value for axis, value in labels.items())
        ]

    def values(self, value: Value, /, **labels: Label) -> list[float]:
        """Of the rows with these labels, those that have the figure."""
        found = (value(row.figures) for row in self.of(**labels))
        return [number for number in found if number is not None]

    def mean(self, value: Value, /, **labels: Label) -> float:
        """Over seeds; NaN where no row has the figure."""
        numbers = self.values(value, **labels)
        return float(np.mean(numbers)) if numbers else float("nan")


@dataclass(frozen=True)
class Study:
    """What `mixdpo study run NAME` runs.

    Attributes:
        question: one sentence, which its page in docs/studies answers.
        variants: the points of a grid, made from the base setting and the study's section of studies/params.yaml.
    """

    name: str
    question: str
    grid: type[Grid]
    variants: Callable[[Setting, Any], list[Variant]]
    columns: tuple[Column, ...]
    draw: Callable[[Results], Figure]


def figure(path: str) -> Value:
    """The number at a dotted path of the figures: `figure("log_likelihood.mean")`."""

    def value(figures: dict[str, Any]) -> float | None:
        found: Any = figures
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return None if found is None else float(found)

    return value


LOG_LIKELIHOOD = Column("log-likelihood", figure("log_likelihood.mean"))
STRANGER = Column("of a stranger", figure("stranger.mean"))
ACCURACY = Column("accuracy", figure("accuracy.mean"))
NMI = Column("NMI", figure("nmi"), 2)
RECOVERED = Column("recovered", figure("recovered"), 2)
ENTROPY_Q = Column("entropy of q", figure("entropy_q"), 2)
ENTROPY_W = Column("entropy of w", figure("entropy_w"), 2)
VARIANCE_Q = Column("variance of q", figure("variance_q"), 2)
WORST_STYLE = Column("worst style", figure("worst_style.mean"))
SECONDS = Column("seconds", figure("seconds"), 0)
