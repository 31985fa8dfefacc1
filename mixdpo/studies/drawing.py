"""Parts of the studies' pictures: curves over an axis, dots for a few variants, heat maps over two axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixdpo.evaluation.plots import POLICY_COLOURS, WIDTH, panels
from mixdpo.studies.setting import Label
from mixdpo.studies.study import Results, Value

CHANCE = float(np.log(0.5))
COLOURS = POLICY_COLOURS[1:]


def curve(axes: Axes, results: Results, axis: str, value: Value, label: str, colour: str, **where: Label) -> None:
    """Mean over seeds along a numeric axis at equal steps, with a band from the lowest seed to the highest."""
    ticks = [tick for tick in results.axis(axis) if results.values(value, **{axis: tick}, **where)]
    runs = [results.values(value, **{axis: tick}, **where) for tick in ticks]
    places = np.arange(len(ticks))
    axes.plot(places, [np.mean(run) for run in runs], color=colour, label=label, marker="o", markersize=4)
    axes.fill_between(places, [min(run) for run in runs], [max(run) for run in runs], color=colour, alpha=0.18, lw=0)
    axes.set_xticks(places, [str(tick) for tick in ticks])
    axes.grid(axis="y")


def dots(axes: Axes, results: Results, axis: str, value: Value) -> None:
    """One line a variant, one dot a seed, a bar at their mean."""
    names = results.axis(axis)
    for place, name in enumerate(names):
        run = results.values(value, **{axis: name})
        if run:
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(run, [place] * len(run), "o", color=colour, alpha=0.6, markersize=6, markeredgewidth=0)
            axes.plot([np.mean(run)], [place], "|", color=colour, markersize=18, markeredgewidth=2)
    axes.set_yticks(range(len(names)), [str(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def heat(
    axes: Axes, results: Results, rows: str, columns: str, value: Value, limits: tuple[float, float], **where: Label
) -> None:
    """Means over seeds on a grid of two axes, written into the cells."""
    down, across = results.axis(rows), results.axis(columns)
    grid = np.array([[results.mean(value, **{rows: y, columns: x}, **where) for x in across] for y in down])
    axes.imshow(grid, cmap="viridis", vmin=limits[0], vmax=limits[1], aspect="auto")
    middle = sum(limits) / 2
    for y, x in np.ndindex(*grid.shape):
        if np.isfinite(grid[y, x]):
            colour = "black" if grid[y, x] > middle else "white"
            axes.text(x, y, f"{grid[y, x]:.2f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(across)), [str(x) for x in across])
    axes.set_yticks(range(len(down)), [str(y) for y in down])
    axes.tick_params(length=0)


def titled(axes: Sequence[Axes], titles: Sequence[str]) -> None:
    for one, title in zip(axes, titles, strict=True):
        one.set_title(title, fontsize=9)


def row_of(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """`count` panels side by side."""
    return panels(count, height, columns=count, width=WIDTH)
