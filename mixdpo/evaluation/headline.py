"""What an evaluation found, in plain words that its figures bear out, good news or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mixdpo.evaluation.markdown import in_order, interval, number, recovered

BASELINE = "dpo"

Ways = Mapping[str, Any]  # what one style gets from one policy: `served`


class Headline(NamedTuple):
    lead: str
    points: list[str]


def headline(metrics: Mapping[str, Any]) -> Headline:
    """The lead sentence is about reward by style where styles are known, else about held-out preferences."""
    mixtures = [name for name, policy in in_order(metrics).items() if policy["experts"] > 1]
    points = [point for name in mixtures for point in _preference_points(name, metrics)]
    if not mixtures:
        return Headline("This run trained no mixture, so nobody can be served better by one.", points)
    if BASELINE not in metrics["policies"]:
        return Headline(f"This run trained no policy named {BASELINE} to compare its mixtures with.", points)
    styles = metrics["styles"]
    if not styles or not all(most_known(served[name]) for served in styles.values() for name in mixtures):
        return Headline(_preference_lead(mixtures, metrics), points)
    return Headline(_served_lead(mixtures, styles), [*(_worst_served(name, styles) for name in mixtures), *points])


def verdict(difference: Mapping[str, float]) -> str:
    """`better`, `worse`, or `no different` where the interval holds 0."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "no different"


def most_known(ways: Ways) -> tuple[int, Mapping[str, Any]] | None:
    """The largest number of comparisons that at least half of the style's annotators have, and what it then gets."""
    few_shot = ways.get("few_shot")
    if not few_shot:
        return None
    people = few_shot["0"]["annotators"]
    most = max(int(m) for m, entry in few_shot.items() if 2 * entry["annotators"] >= people)
    return most, few_shot[str(most)]


def _best_known(ways: Ways) -> Mapping[str, Any]:
    known = most_known(ways)
    assert known is not None
    return known[1]


def _served_lead(mixtures: list[str], styles: Mapping[str, Mapping[str, Ways]]) -> str:
    gains = {
        name: {style: _best_known(served[name])[f"minus_{BASELINE}"] for style, served in styles.items()}
        for name in mixtures
    }
    best = max(mixtures, key=lambda name: _average(gains[name]))
    first = next(iter(styles.values()))[best]
    known = most_known(first)
    assert known is not None
    count = known[0]
    stranger = _average({style: served[best]["prior"][f"minus_{BASELINE}"] for style, served in styles.items()})
    return (
        f"Once it knows {count} comparisons of a person, {best} serves {_who(gains[best])}: "
        f"{number(_average(gains[best]), 2, sign=True)} standard deviations of reward on average over "
        f"{len(styles)} style{'s' * (len(styles) > 1)}, and {number(stranger, 2, sign=True)} for a stranger."
    )


def _who(gains: Mapping[str, Mapping[str, float]]) -> str:
    """`every style better than one dpo policy for all`, or which styles better, which worse."""
    than = f"than one {BASELINE} policy for all"
    found: dict[str, list[str]] = {"better": [], "worse": [], "no different": []}
    for style, gain in gains.items():
        found[verdict(gain)].append(style)
    better, worse, same = found.values()
    if not worse and not same:
        return f"every style better {than}"
    if not better and not same:
        return f"every style worse {than}"
    if not better and not worse:
        return f"nobody clearly better or worse {than}"
    parts = [(better, "better"), (worse, "worse"), (same, "about the same")]
    told = [f"{_list(names)} {word}" for names, word in parts if names]
    return f"{', '.join(told)}, compared with one {BASELINE} policy for all"


def _worst_served(name: str, styles: Mapping[str, Mapping[str, Ways]]) -> str:
    entries = {style: _best_known(served[name]) for style, served in styles.items()}
    worst = min(entries, key=lambda style: (entries[style]["reward"]["mean"], style))
    compared = entries[worst][f"minus_{BASELINE}"]
    judged = {"better": "still better", "worse": "which is worse", "no different": "no clear difference"}
    return (
        f"Worst served by {name}: {worst}, whose annotators get "
        f"{number(entries[worst]['reward']['mean'], 2, sign=True)} standard deviations against SFT and "
        f"{interval(compared, 2, sign=True)} against {BASELINE}, {judged[verdict(compared)]}."
    )


def _preference_points(name: str, metrics: Mapping[str, Any]) -> list[str]:
    policy = metrics["policies"][name]
    preference, points = policy["preference"], []
    difference = preference.get(f"minus_{BASELINE}")
    if difference is not None:
        words = {"better": "likelier", "worse": "less likely", "no different": "not clearly likelier"}
        other = metrics["policies"][BASELINE]["preference"]["log_likelihood"]["mean"]
        worst = preference["worst_style"]
        points.append(
            f"Held-out preferences are {words[verdict(difference['log_likelihood'])]} under {name} than under "
            f"{BASELINE}: {number(preference['log_likelihood']['mean'])} against {number(other)} nats a pair, a "
            f"difference of {interval(difference['log_likelihood'], sign=True)}"
            + ("." if worst is None else f"; the style predicted worst is {worst}.")
        )
    nmi = recovered(policy)
    if nmi is not None:
        found = "found" if nmi >= 0.8 else "partly found" if nmi >= 0.3 else "did not find"
        points.append(f"The experts of {name} {found} the annotators' styles (NMI {number(nmi, 2)}, where 1 is exact).")
    elif policy["specialisation"]["mutual_information_share"] < 0.05:
        points.append(f"The experts of {name} have hardly parted: responsibilities say almost nothing about the pair.")
    return points


def _preference_lead(mixtures: list[str], metrics: Mapping[str, Any]) -> str:
    compared = {
        name: metrics["policies"][name]["preference"][f"minus_{BASELINE}"]["log_likelihood"] for name in mixtures
    }
    best = max(mixtures, key=lambda name: compared[name]["mean"])
    words = {
        "better": f"{best} predicts what held-out annotators prefer better than one {BASELINE} policy for all",
        "worse": f"No mixture predicts what held-out annotators prefer as well as one {BASELINE} policy for all",
        "no different": f"No mixture clearly predicts held-out preferences better than one {BASELINE} policy for all",
    }[verdict(compared[best])]
    return f"{words}: {interval(compared[best], sign=True)} nats a pair ({best})."


def _average(gains: Mapping[str, Mapping[str, float]]) -> float:
    return sum(gain["mean"] for gain in gains.values()) / len(gains)


def _list(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
