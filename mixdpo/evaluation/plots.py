"""The report's figures. Each function takes figures of metrics/evaluation.json or its tables, and returns one Figure.

No global pyplot state: figures are objects, drawn by Agg when `save` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixdpo.evaluation.headline import most_known
from mixdpo.evaluation.markdown import in_order
from mixdpo.evaluation.statistics import Floats

# Okabe and Ito 2008: told apart by colour-blind readers too
POLICY_COLOURS = ("#7a7a7a", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
EXPERT_COLOURS = ("#56B4E9", "#D55E00", "#CC79A7", "#F0E442", "#009E73", "#0072B2", "#E69F00", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#666666",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "legend.fontsize": 9,
}
DPI = 200  # twice the usual: sharp on dense screens
WIDTH = 8.0
SMOOTH = 21  # steps averaged in a training curve


P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under `STYLE`, leaving matplotlib's global settings alone."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    with rc_context(STYLE):
        figure.savefig(path, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})


def panels(count: int, height: float = 3.2, columns: int = 3, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes in rows of `columns`."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def colour_of(policies: Iterable[str]) -> dict[str, str]:
    return {name: POLICY_COLOURS[place % len(POLICY_COLOURS)] for place, name in enumerate(policies)}


def expert_colour(expert: int) -> str:
    return EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]


def _bar(axes: Axes, place: float, value: Mapping[str, float], colour: str, width: float, **look: Any) -> None:
    axes.bar(place, value["mean"], width, color=colour, **look)
    low, high = value["mean"] - value["low"], value["high"] - value["mean"]
    axes.errorbar(place, value["mean"], yerr=[[low], [high]], color="#222222", linewidth=1, capsize=2)


@styled
def reward_bars(metrics: Mapping[str, Any]) -> Figure:
    """Judges' mean reward on each dimension: every policy, and beside a mixture each of its experts."""
    policies = in_order(metrics)
    colours = colour_of(policies)
    figure, axes = panels(len(metrics["dimensions"]), height=3.4)
    for ax, dimension in zip(axes, metrics["dimensions"], strict=True):
        place, ticks, shown = 0.0, [], []
        for name, policy in policies.items():
            _bar(ax, place, policy["rewards"]["judge"][dimension], colours[name], 0.8)
            ticks.append(place)
            shown.append(name)
            place += 0.75
            if policy["experts"] > 1:
                for expert, own in enumerate(policy["by_expert"]):
                    _bar(ax, place, own["rewards"]["judge"][dimension], colours[name], 0.42, alpha=0.4)
                    ticks.append(place)
                    shown.append(str(expert))
                    place += 0.5
            place += 0.5
        ax.axhline(policies["sft"]["rewards"]["judge"][dimension]["mean"], color="#7a7a7a", linewidth=0.8, ls=":")
        ax.set_xticks(ticks, shown, rotation=45 if len(ticks) > 9 else 0, fontsize=8)
        ax.set_title(dimension)
        ax.grid(axis="y")
    axes[0].set_ylabel("judges' mean score")
    return figure


@styled
def style_bars(metrics: Mapping[str, Any]) -> Figure:
    """What each style gets, in standard deviations of SFT's samples, from every policy and way of weighting."""
    styles = metrics["styles"]
    colours = colour_of(in_order(metrics))
    figure, axes = panels(len(styles), height=3.6)
    for ax, (style, served) in zip(axes, styles.items(), strict=True):
        place, ticks, shown = 0.0, [], []
        for policy in colours:
            for label, value, alpha in _ways(policy, served[policy]):
                _bar(ax, place, value, colours[policy], 0.8, alpha=alpha)
                ticks.append(place)
                shown.append(label)
                place += 1
            place += 0.5
        ax.axhline(0, color="#666666", linewidth=0.8)
        ax.set_xticks(ticks, shown, rotation=90, fontsize=8)
        ax.set_title(style)
        ax.grid(axis="y")
    axes[0].set_ylabel("reward (s.d. of SFT samples)")
    return figure


def _ways(policy: str, ways: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float], float]]:
    shown = [(policy if "uniform" not in ways else f"{policy}, stranger", ways["prior"]["reward"], 0.45)]
    if "few_shot" in ways:
        known = most_known(ways)
        assert known is not None
        shown.append((f"{policy}, {known[0]} answers", known[1]["reward"], 0.75))
        shown.append((f"{policy}, own expert", ways["oracle"]["reward"], 1.0))
    return shown if len(shown) > 1 else [(*shown[0][:2], 1.0)]


@styled
def responsibilities_by_style(matrices: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Mean responsibility of each expert for each style's annotators, one heat map a policy."""
    figure, axes = panels(len(matrices), height=3.2, columns=2)
    for ax, (policy, matrix) in zip(axes, matrices.items(), strict=True):
        values = np.array(list(matrix.values()))
        image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(values.shape):
            dark = values[row, column] > 0.55
            ax.text(
                column,
                row,
                f"{values[row, column]:.2f}",
                ha="center",
                va="center",
                color="white" if dark else "#222222",
            )
        ax.set_xticks(range(values.shape[1]), [f"expert {k}" for k in range(values.shape[1])])
        ax.set_yticks(range(len(matrix)), list(matrix))
        ax.set_title(policy)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="mean responsibility", shrink=0.8)
    return figure


@styled
def annotator_map(policies: Mapping[str, tuple[Floats, Sequence[str]]], jitter: np.random.Generator) -> Figure:
    """Every held-out annotator at the mean of the experts' corners, weighted by responsibility; coloured by style.

    With three experts this is the exact simplex. `policies`: name → (annotators, K) responsibilities and styles.
    """
    figure, axes = panels(len(policies), height=3.6, columns=2)
    styles = sorted({style for _, names in policies.values() for style in names})
    for ax, (policy, (q, names)) in zip(axes, policies.items(), strict=True):
        experts = q.shape[1]
        angle = np.pi / 2 + 2 * np.pi * np.arange(experts) / experts
        corners = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        closed = np.vstack([corners, corners[:1]])
        ax.plot(closed[:, 0], closed[:, 1], color="#bbbbbb", linewidth=1)
        for expert, corner in enumerate(corners):
            x, y = 1.16 * corner
            ax.text(x, y, f"expert {expert}", ha="center", va="center", fontsize=9)
        # many sit in a corner exactly: spread them so that each can be seen
        places = q @ corners + jitter.normal(scale=0.03, size=(len(q), 2))
        for number, style in enumerate(styles):
            mine = np.array(names) == style
            marker = MARKERS[number % len(MARKERS)]
            colour = POLICY_COLOURS[1 + number % (len(POLICY_COLOURS) - 1)]
            x, y = places[mine].T
            ax.scatter(x, y, s=22, alpha=0.75, color=colour, marker=marker, label=style, linewidth=0)
        ax.set_title(policy)
        ax.set_aspect("equal")
        (left, bottom), (right, top) = corners.min(axis=0) - 0.35, corners.max(axis=0) + 0.3
        ax.set(xlim=(left, right), ylim=(bottom, top))
        ax.axis("off")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, handletextpad=0.1)
    return figure


@styled
def few_shot_curves(metrics: Mapping[str, Any]) -> Figure:
    """What a handful of comparisons is worth: likelihood of held-out preferences, and reward of each style.

    Dotted: the style's own expert. Below each number of comparisons, how many annotators have as many.
    """
    policies, styles = in_order(metrics), metrics["styles"] or {}
    colours = colour_of(policies)
    figure, axes = panels(1 + len(styles), height=3.2, columns=2)
    for name, policy in policies.items():
        if policy["preference"] is not None:
            _curve(axes[0], policy["preference"]["few_shot"], name, colours[name])
            if "oracle" in policy["preference"]:
                _own_expert(axes[0], policy["preference"]["oracle"], colours[name])
    axes[0].axhline(np.log(0.5), color="#7a7a7a", linewidth=0.8)
    axes[0].set(title="held-out preferences", ylabel="log-likelihood (nats a pair)")
    for ax, (style, served) in zip(axes[1:], styles.items(), strict=True):
        for name in policies:
            ways = served[name]
            if "few_shot" in ways:
                curve = {
                    m: entry["reward"] | {"annotators": entry["annotators"]} for m, entry in ways["few_shot"].items()
                }
                _curve(ax, curve, name, colours[name])
                _own_expert(ax, ways["oracle"]["reward"], colours[name])
            elif name != "sft":
                ax.axhline(ways["prior"]["reward"]["mean"], color=colours[name], linewidth=1.4, label=name)
        ax.set(title=style, ylabel="reward (s.d. of SFT samples)")
    for ax in axes:
        ax.set_xlabel("known comparisons (annotators)")
        ax.grid(axis="y")
    axes[0].legend()
    return figure


def _curve(axes: Axes, curve: Mapping[str, Mapping[str, float]], label: str, colour: str) -> None:
    """Over numbers of comparisons, evenly spaced: they double."""
    counts = sorted(int(m) for m in curve)
    places = range(len(counts))
    mean, low, high = (np.array([curve[str(m)][part] for m in counts]) for part in ("mean", "low", "high"))
    axes.plot(places, mean, color=colour, label=label, marker="o", markersize=3.5)
    axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xticks(places, [f"{m}\n({curve[str(m)]['annotators']:,})" for m in counts])


def _own_expert(axes: Axes, reward: Mapping[str, float], colour: str) -> None:
    axes.axhline(reward["mean"], color=colour, linewidth=1.0, ls=":")


@styled
def routing_bars(routes: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Where mixing weights send each domain: stacked mean weights, one panel a policy."""
    figure, axes = panels(len(routes), height=2.6, columns=2)
    for ax, (policy, domains) in zip(axes, routes.items(), strict=True):
        values = np.array(list(domains.values()))
        left = np.zeros(len(values))
        for expert, share in enumerate(values.T):
            ax.barh(range(len(values)), share, left=left, color=expert_colour(expert), label=f"expert {expert}")
            left = left + share
        ax.set_yticks(range(len(domains)), [name or "unknown" for name in domains])
        ax.set(xlim=(0, 1), xlabel="mean weight", title=policy)
        ax.invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def training_curves(curves: Mapping[str, Mapping[str, Floats]]) -> Figure:
    """Likelihood, bound and entropy over steps; `curves`: policy → column → values (NaN where not logged)."""
    colours = colour_of(["sft", *curves])
    wanted = (
        ("train_marginal", "training pairs", "log-likelihood (nats a pair)"),
        ("validation_marginal", "validation pairs", "log-likelihood (nats a pair)"),
        ("elbo", "evidence lower bound", "nats a pair"),
        ("entropy_q", "entropy of responsibilities", "share of log K"),
    )
    present = [entry for entry in wanted if any(entry[0] in curve for curve in curves.values())]
    figure, axes = panels(len(present), height=2.9, columns=2)
    for ax, (column, title, unit) in zip(axes, present, strict=True):
        for name, curve in curves.items():
            if column not in curve or (column == "entropy_q" and "usage_1" not in curve):
                continue
            logged = np.isfinite(curve[column])
            step, value = curve["step"][logged], curve[column][logged]
            if len(value) > SMOOTH:  # every step was logged, of one batch each
                ax.plot(step, value, color=colours[name], linewidth=0.6, alpha=0.25)
                value = np.convolve(value, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
                step = step[SMOOTH // 2 : SMOOTH // 2 + len(value)]
            ax.plot(step, value, color=colours[name], label=name, linewidth=1.5)
        ax.set(title=title, xlabel="step", ylabel=unit)
        ax.grid(axis="y")
    axes[0].legend()
    return figure


@styled
def frontier(metrics: Mapping[str, Any]) -> Figure:
    """Reward against distance from the reference: what each policy and expert pays for what it gets."""
    policies = in_order(metrics)
    colours = colour_of(policies)
    figure, axes = panels(len(metrics["dimensions"]), height=3.0)
    for ax, dimension in zip(axes, metrics["dimensions"], strict=True):
        for name, policy in policies.items():
            reward, kl = policy["rewards"]["judge"][dimension]["mean"], policy["cost"]["kl"]["mean"]
            ax.scatter(kl, reward, s=60, color=colours[name], label=name, zorder=3)
            if policy["experts"] > 1:
                for expert, own in enumerate(policy["by_expert"]):
                    x, y = own["cost"]["kl"]["mean"], own["rewards"]["judge"][dimension]["mean"]
                    ax.scatter(x, y, s=28, facecolor="white", edgecolor=colours[name], zorder=2)
                    ax.annotate(str(expert), (x, y), xytext=(4, 3), textcoords="offset points", fontsize=8)
        ax.set(title=dimension, xlabel="KL to SFT (nats a completion)")
        ax.grid()
    axes[0].set_ylabel("judges' mean score")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
