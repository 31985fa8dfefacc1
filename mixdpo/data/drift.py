"""How far the data moved since a version: its profile beside that of now, column by column.

Numbers are compared by the population stability index over bins that held a tenth of the earlier rows each,

    psi = Σ (now − then) · ln(now / then),        now, then: shares of rows in a bin,

which is the Kullback-Leibler divergence taken both ways; of names Great Expectations takes it one way, so that the
limits for these are half. A difference counts only where it is also larger than chance makes it: without any drift,
psi is χ² with (bins − 1) degrees of freedom, times (1/rows now + 1/rows then) (Yurdakul and Naranjo, 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri

from mixdpo.config.data import Drift
from mixdpo.data.profile import Names, Numbers, Profile, TableProfile

BINS = 10
FLOOR = 0.5  # rows that an empty bin counts for
CHANCE = 0.999  # of columns that did not move stay below what chance makes
MISSING = "(missing)"

Verdict = Literal["ok", "warn", "refuse"]
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """One column, then and now."""

    table: str
    column: str
    measure: Literal["psi", "kl", "absent"]
    value: float  # nats
    chance: float  # what a column that did not move stays below
    verdict: Verdict
    told: str  # what changed, in words

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column}"


def compare(then: Profile, now: Profile, limits: Drift) -> list[Shift]:
    """Every column of the earlier profile beside what it is now, the farthest moved first.

    Tables that are empty in one of the two are left out; a column that is gone is as bad as can be.
    """
    shifts = [
        shift
        for name, table in then.tables.items()
        if name in now.tables and table.rows and now.tables[name].rows
        for shift in _table(name, table, now.tables[name], limits)
    ]
    return sorted(shifts, key=lambda shift: (-shift.value, shift.name))


def stability_index(then: Counts, now: Counts) -> float:
    """psi of two rows of counts over the same bins; an empty bin counts as half a row."""
    before, after = (np.maximum(counts, FLOOR) / np.maximum(counts, FLOOR).sum() for counts in (then, now))
    return float(((after - before) * np.log(after / before)).sum())


def by_chance(bins: int, then: float, now: float) -> float:
    """What psi over so many bins stays below, with probability CHANCE, where so many rows each are drawn alike."""
    return float(chdtri(bins - 1, 1 - CHANCE)) * (1 / then + 1 / now) if bins > 1 else 0.0


def deciles(then: Numbers, now: Numbers) -> tuple[Counts, Counts]:
    """Both counts over at most BINS bins, neighbours joined until the earlier ones hold a tenth of its rows each.

    Rows without a value are one bin more, where there are any.
    """
    fine = np.array([then.counts, now.counts], dtype=np.float64)
    least = fine[0].sum() / BINS
    joined: list[Counts] = []
    held = np.zeros(2)
    for counts in fine.T:
        held = held + counts
        if held[0] >= max(least, 1):
            joined.append(held)
            held = np.zeros(2)
    if joined and held.any():
        joined[-1] = joined[-1] + held
    elif not joined:
        joined.append(held)
    if then.missing or now.missing:
        joined.append(np.array([then.missing, now.missing], dtype=np.float64))
    both = np.stack(joined, axis=1)
    return both[0], both[1]


def _table(name: str, then: TableProfile, now: TableProfile, limits: Drift) -> Iterator[Shift]:
    named: dict[str, tuple[Names, Names]] = {}
    for column, before in then.columns.items():
        after = now.columns.get(column)
        if isinstance(before, Numbers) and isinstance(after, Numbers) and before.edges == after.edges:
            both = deciles(before, after)
            value, chance = stability_index(*both), by_chance(len(both[0]), then.rows, now.rows)
            yield Shift(name, column, "psi", value, chance, _verdict(value, chance, limits, 1), _moved(before, after))
        elif isinstance(before, Names) and isinstance(after, Names):
            named[column] = before, after
        else:
            verdict: Verdict = "warn" if limits.refuse is None else "refuse"
            yield Shift(name, column, "absent", math.inf, 0.0, verdict, "the column is not there any more")
    yield from _named(name, named, limits)


def _named(name: str, columns: Mapping[str, tuple[Names, Names]], limits: Drift) -> Iterator[Shift]:
    if not columns:
        return
    from mixdpo.data.expectations.divergence import divergences  # Great Expectations takes seconds to import

    counted = {column: (_with_missing(then), _with_missing(now)) for column, (then, now) in columns.items()}
    for column, value in divergences(counted).items():
        before, after = counted[column]
        chance = by_chance(len({**before, **after}), sum(before.values()), sum(after.values())) / 2
        yield Shift(name, column, "kl", value, chance, _verdict(value, chance, limits, 0.5), _shares(before, after))


def _verdict(value: float, chance: float, limits: Drift, share: float) -> Verdict:
    if value <= chance or value <= limits.warn * share:
        return "ok"
    return "refuse" if limits.refuse is not None and value > limits.refuse * share else "warn"


def _with_missing(names: Names) -> dict[str, int]:
    return {**names.counts, **({MISSING: names.missing} if names.missing else {})}


def _moved(then: Numbers, now: Numbers) -> str:
    before, after = (each.quantiles.get("50%") for each in (then, now))
    missing = [each.missing / max(sum(each.counts) + each.missing, 1) for each in (then, now)]
    lacking = f", without a value {missing[0]:.1%} → {missing[1]:.1%}" if any(missing) else ""
    return f"median {_number(before)} → {_number(after)}{lacking}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _shares(then: Mapping[str, int], now: Mapping[str, int], most: int = 3) -> str:
    """The names whose shares moved most."""
    totals = sum(then.values()), sum(now.values())
    shares = {key: (then.get(key, 0) / totals[0], now.get(key, 0) / totals[1]) for key in {**then, **now}}
    moved = sorted(shares.items(), key=lambda item: (-round(abs(item[1][1] - item[1][0]), 9), item[0]))[:most]
    return ", ".join(f"{key} {before:.1%} → {after:.1%}" for key, (before, after) in moved)
