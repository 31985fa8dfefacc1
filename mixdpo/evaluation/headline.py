"""What an evaluation found, in plain words that its figures bear out, good news or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mixdpo.evaluation.markdown import recovered

BASELINE = "dpo"


class Headline(NamedTuple):
    lead: str
    points: list[str]


def verdict(difference: Mapping[str, float]) -> str:
    """`better`, `worse`, or `no different` where the interval holds 0."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "no different"


def headline(metrics: Mapping[str, Any]) -> Headline:
    """The lead sentence is about reward by style where styles are known, else about held-out preferences."""
    mixtures = [name for name, policy in metrics["policies"].items() if policy["experts"] > 1]
    points = [point for name in mixtures for point in _points(name, metrics)]
    if not mixtures:
        return Headline("This run trained no mixture, so nobody can be served better by one.", points)
    if BASELINE not in metrics["policies"]:
        return Headline(f"This run trained no policy named {BASELINE} to compare its mixtures with.", points)
    if metrics["styles"]:
        return Headline(
            _served_lead(mixtures, metrics["styles"]), [*_worst_served(mixtures, metrics["styles"]), *points]
        )
    return Headline(_preference_lead(mixtures, metrics), points)


def most_known(ways: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
    """The largest number of comparisons that was tried, and what the style then gets."""
    few_shot = ways.get("few_shot")
    if not few_shot:
        return None
    most = max(few_shot, key=int)
    return int(most), few_shot[most]


def _served_lead(mixtures: list[str], styles: Mapping[str, Any]) -> str:
    gains = {name: _gains(name, styles) for name in mixtures}
    gains = {name: found for name, found in gains.items() if found}
    if not gains:
        return "No held-out annotator of a known style has comparisons, so nobody's gain can be told."
    best = max(gains, key=lambda name: _average(gains[name]))
    counts: dict[str, list[str]] = {word: [] for word in ("better", "worse", "no different")}
    for style, gain in gains[best].items():
        counts[verdict(gain)].append(style)
    known = most_known(next(iter(styles.values()))[best])
    assert known is not None
    parts = [
        f"{_names(counts['better'])} better" if counts["better"] else "",
        f"{_names(counts['worse'])} worse" if counts["worse"] else "",
        f"{_names(counts['no different'])} about the same" if counts["no different"] else "",
    ]
    size = signed(_average(gains[best]))
    return (
        f"Once it knows {known[0]} comparisons of a person, {best} serves "
        f"{'; '.join(part for part in parts if part)}, measured against one {BASELINE} policy for all: "
        f"{size} standard deviations of reward on average over the {len(gains[best])} styles."
    )


def _gains(name: str, styles: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    found = {style: most_known(served[name]) for style, served in styles.items()}
    return {style: known[1][f"minus_{BASELINE}"] for style, known in found.items() if known is not None}


def _average(gains: Mapping[str, Mapping[str, float]]) -> float:
    return sum(gain["mean"] for gain in gains.values()) / len(gains)


def _worst_served(mixtures: list[str], styles: Mapping[str, Any]) -> list[str]:
    points = []
    for name in mixtures:
        rewards = {
            style: known[1]["reward"]
            for style, served in styles.items()
            if (known := most_known(served[name])) is not None
        }
        if rewards:
            worst = min(rewards, key=lambda style: (rewards[style]["mean"], style))
            gain = most_known(styles[worst][name])
            assert gain is not None
            compared = gain[1][f"minus_{BASELINE}"]
            points.append(
                f"Worst served by {name}: {worst}, whose annotators get {signed(rewards[worst]['mean'])} standard "
                f"deviations against SFT and {bracketed(compared)} against {BASELINE}, which is {verdict(compared)}."
            )
    return points


def _points(name: str, metrics: Mapping[str, Any]) -> list[str]:
    policy = metrics["policies"][name]
    preference, points = policy["preference"], []
    difference = preference.get(f"minus_{BASELINE}")
    if difference is not None:
        other = metrics["policies"][BASELINE]["preference"]["log_likelihood"]["mean"]
        points.append(
            f"Held-out preferences are {_likelier(difference['log_likelihood'])} under {name} than under {BASELINE}: "
            f"{minus(preference['log_likelihood']['mean'])} against {minus(other)} nats a pair, a difference of "
            f"{bracketed(difference['log_likelihood'])}"
            + (
                f"; the style predicted worst is {preference['worst_style']}."
                if preference["worst_style"] is not None
                else "."
            )
        )
    nmi = recovered(policy)
    if nmi is not None:
        points.append(
            f"The experts of {name} {_recovery_words(nmi)} the annotators' styles (NMI {nmi:.2f}, 1 is exact)."
        )
    elif policy["specialisation"]["mutual_information_share"] < 0.05:
        points.append(f"The experts of {name} have hardly parted: responsibilities say almost nothing about the pair.")
    return points


def _preference_lead(mixtures: list[str], metrics: Mapping[str, Any]) -> str:
    compared = {
        name: metrics["policies"][name]["preference"][f"minus_{BASELINE}"]["log_likelihood"] for name in mixtures
    }
    best = max(compared, key=lambda name: compared[name]["mean"])
    words = {
        "better": f"{best} predicts what held-out annotators prefer better than one {BASELINE} policy for all",
        "worse": f"No mixture predicts what held-out annotators prefer as well as one {BASELINE} policy for all",
        "no different": f"No mixture clearly predicts held-out preferences better than one {BASELINE} policy for all",
    }[verdict(compared[best])]
    return f"{words}: {bracketed(compared[best])} nats a pair ({best})."


def _likelier(difference: Mapping[str, float]) -> str:
    return {"better": "likelier", "worse": "less likely", "no different": "not clearly likelier"}[verdict(difference)]


def _recovery_words(nmi: float) -> str:
    if nmi >= 0.8:
        return "found"
    return "partly found" if nmi >= 0.3 else "did not find"


def _names(styles: list[str]) -> str:
    shown = f"{', '.join(styles[:-1])} and {styles[-1]}" if len(styles) > 1 else styles[0]
    return f"annotators who care for {shown}"


def minus(value: float, digits: int = 3) -> str:
    """A number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def bracketed(value: Mapping[str, float], digits: int = 2) -> str:
    """`+0.19 [+0.15, +0.23]`."""
    return f"{signed(value['mean'], digits)} [{signed(value['low'], digits)}, {signed(value['high'], digits)}]"
