"""What the report says, section by section, as data: the HTML page and the Markdown file are two ways to print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixdpo.evaluation.headline import BASELINE, most_known
from mixdpo.evaluation.markdown import in_order, interval, number, recovered


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A figure by its file name in reports/figures, with what to see in it."""

    file: str
    caption: str


@dataclass(frozen=True)
class Link:
    """To a page beside the report."""

    text: str
    target: str


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


def preferences(metrics: Mapping[str, Any]) -> Section:
    header = ["policy", "log-likelihood (nats)", "accuracy", "calibration error", "NMI"]
    rows = []
    for name, policy in in_order(metrics).items():
        preference, nmi = policy["preference"], recovered(policy)
        if preference is not None:
            rows.append(
                [
                    name,
                    interval(preference["log_likelihood"]),
                    interval(preference["accuracy"]),
                    number(preference["calibration_error"]),
                    "–" if nmi is None else number(nmi, 2),
                ]
            )
    strangers = [
        [
            name,
            interval(policy["preference"]["stranger"]["log_likelihood"]),
            interval(policy["preference"]["stranger"]["accuracy"]),
            interval(policy["preference"]["stranger"].get(f"minus_{BASELINE}", {}).get("log_likelihood"), sign=True),
        ]
        for name, policy in in_order(metrics).items()
        if policy["preference"] is not None
    ]
    return Section(
        "Held-out preferences",
        f"{metrics['pairs']:,} pairs of {metrics['annotators']:,} annotators, {_met(metrics)} met in training. "
        "A policy that knows nothing scores −0.693 nats and 0.5. A mixture whose latent is the annotator predicts each "
        "pair from the same annotator's other pairs. Intervals are 95 % bootstrap intervals over annotators.",
        [
            Table("Each pair predicted with what is known of its annotator", header, rows),
            Table(
                "The same for a stranger: no other pair known",
                ["policy", "log-likelihood (nats)", "accuracy", f"difference to {BASELINE} (nats)"],
                strangers,
            ),
            *_returning(metrics),
            _few_shot(metrics),
            *_preference_by_style(metrics),
        ],
        [
            Picture(
                "few-shot.png",
                f"What each further comparison of an annotator is worth, beside {BASELINE}. Dotted: the style's own "
                "expert. In brackets, how many annotators have as many; the others count with what they have.",
            )
        ],
    )


def _met(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['returning_annotators']:,} of them" if metrics["returning_annotators"] else "none of them"


def _returning(metrics: Mapping[str, Any]) -> list[Table]:
    """Those who labelled in training too: what a gate that knows them, or their labels of then, are worth."""
    known = {
        name: policy["preference"]["returning"]
        for name, policy in in_order(metrics).items()
        if policy["preference"] and policy["preference"]["returning"]
    }
    if not known:
        return []
    rows = [
        [
            name,
            interval(part["log_likelihood"]),
            interval(part["accuracy"]),
            interval(part["stranger"]["log_likelihood"]),
            interval(part.get(f"minus_{BASELINE}", {}).get("log_likelihood"), sign=True),
        ]
        for name, part in known.items()
    ]
    return [
        Table(
            "Annotators met in training: with all that is known of them, and with none of it but what the weights know",
            [
                "policy",
                "log-likelihood (nats)",
                "accuracy",
                "no label known (nats)",
                f"difference to {BASELINE} (nats)",
            ],
            rows,
        )
    ]


def _few_shot(metrics: Mapping[str, Any]) -> Table:
    """Log-likelihood against comparisons known, beside the style's own expert."""
    trained = {name: policy["preference"] for name, policy in in_order(metrics).items() if policy["preference"]}
    counts = sorted({int(m) for preference in trained.values() for m in preference["few_shot"]})
    rows = [
        [
            name,
            *(number(preference["few_shot"][str(m)]["mean"]) for m in counts),
            number(preference["oracle"]["mean"]) if "oracle" in preference else "–",
        ]
        for name, preference in trained.items()
    ]
    people = next(iter(trained.values()))["few_shot"]
    rows.append(["annotators with as many", *(f"{people[str(m)]['annotators']:,}" for m in counts), ""])
    return Table(
        "Log-likelihood (nats) after so many other comparisons, or all where an annotator has fewer",
        ["policy", *map(str, counts), "own expert"],
        rows,
    )


def _preference_by_style(metrics: Mapping[str, Any]) -> list[Table]:
    trained = {name: policy["preference"] for name, policy in in_order(metrics).items() if policy["preference"]}
    styles = sorted({style for preference in trained.values() for style in preference["by_style"]})
    if not styles:
        return []
    return [
        Table(
            "Log-likelihood by style (nats); * marks the worst of each policy",
            ["style", *trained],
            [
                [
                    style,
                    *(
                        interval(preference["by_style"][style]["log_likelihood"])
                        + (" *" if style == preference["worst_style"] else "")
                        for preference in trained.values()
                    ),
                ]
                for style in styles
            ],
        )
    ]


def served(metrics: Mapping[str, Any]) -> Section:
    if not metrics["styles"]:
        return Section(
            "Who is served",
            "This run reads ready preferences, whose annotators' tastes in terms of the judges are not known, so "
            "reward by style cannot be told. Held-out preferences below are the measure.",
        )
    rows, gains = [], []
    for style, policies in metrics["styles"].items():
        for name in in_order(metrics):
            ways = policies[name]
            known = most_known(ways)
            rows.append(
                [
                    f"{style}: {name}",
                    interval(ways["prior"]["reward"], 2, sign=True),
                    interval(known and known[1]["reward"], 2, sign=True),
                    interval(ways["oracle"]["reward"] if known else None, 2, sign=True),
                ]
            )
            if known and f"minus_{BASELINE}" in ways["prior"]:
                gains.append(
                    [
                        f"{style}: {name}",
                        *(
                            interval(entry[f"minus_{BASELINE}"], 2, sign=True)
                            for entry in (ways["prior"], ways["uniform"], known[1], ways["oracle"])
                        ),
                    ]
                )
    known_count = max(
        (most_known(ways) or (0, None))[0] for served in metrics["styles"].values() for ways in served.values()
    )
    after = f"after {known_count} comparisons"
    return Section(
        "Who is served",
        "What annotators of each style get: their own weighting of the judges' scores, in standard deviations of what "
        "SFT writes. A stranger gets the mixture's own weights; after some comparisons the posterior over experts "
        "takes their place, with no training; the style's own expert is what knowing the style exactly would give. "
        "Intervals are over prompts; an annotator's comparisons may be of prompts judged here, never of these samples.",
        [
            Table("Reward by style", ["style and policy", "as a stranger", after, "own expert"], rows),
            Table(
                f"Paired differences to {BASELINE}",
                ["style and policy", "as a stranger", "uniform weights", after, "own expert"],
                gains,
            ),
        ],
        [Picture("styles.png", "Reward by style. Zero is SFT.")],
    )


def rewards(metrics: Mapping[str, Any]) -> Section:
    dimensions = metrics["dimensions"]
    means, experts, against = [], [], []
    for name, policy in in_order(metrics).items():
        table = policy["rewards"]
        means.append([name, *(interval(table["judge"][d]) for d in dimensions)])
        if policy["experts"] > 1:
            means += [
                [f"{name}, expert {k}", *(interval(own["rewards"]["judge"][d]) for d in dimensions)]
                for k, own in enumerate(policy["by_expert"])
            ]
        experts.append(
            [name, *(number(table["annotator"][d]["mean"] - table["judge"][d]["mean"], sign=True) for d in dimensions)]
        )
        against += [
            [f"{name} − {other}", *(interval(table[f"minus_{other}"]["judge"][d], sign=True) for d in dimensions)]
            for other in ("sft", BASELINE)
            if f"minus_{other}" in table
        ]
    return Section(
        "Rewards by held-out judges",
        f"Every expert completed {metrics['prompts']:,} held-out prompts, samples of each: "
        f"{metrics['samples_per_prompt']}. A mixture's figure is the exact expectation over its experts under its own "
        "weights, as a stranger gets it. Judges had no part in labelling the pairs; where the annotators' reward "
        "models are happier than they are, and more so than with SFT, a policy has learnt quirks of a model.",
        [
            Table("Judges' mean score", ["policy", *dimensions], means),
            Table("Paired differences", ["policies", *dimensions], against),
            Table("Annotators' models minus judges", ["policy", *dimensions], experts),
        ],
        [
            Picture("rewards.png", "Judges' mean scores with 95 % intervals; pale bars are the mixture's experts."),
            Picture("frontier.png", "Reward against distance from SFT; open circles are experts."),
        ],
    )


def specialisation(metrics: Mapping[str, Any], pictures: list[Picture]) -> Section:
    mixtures = {name: p["specialisation"] for name, p in in_order(metrics).items() if p["specialisation"]}
    use = [
        [
            name,
            found["latent"],
            number(found["mutual_information_share"], 2),
            number(found["entropy_q"], 2),
            number(found["entropy_w"], 2),
            number(found["effective_experts"], 2),
            " ".join(number(share, 2) for share in found["usage"]),
            number(found["margin_spread"], 2),
        ]
        for name, found in mixtures.items()
    ]
    found_styles = [
        [
            f"{name}, one latent {what}",
            number(part["nmi"], 2),
            number(part["ari"], 2),
            number(part["accuracy"], 2),
            "; ".join(f"{style} → {expert}" for style, expert in part["assignment"].items()),
        ]
        for name, found in mixtures.items()
        for what, part in (("an annotator", found["annotators"]), ("a pair", found["pairs"]))
        if part is not None
    ]
    header = [
        "policy",
        "latent",
        "information",
        "entropy of q",
        "entropy of w",
        "effective experts",
        "usage",
        "spread of margins (nats)",
    ]
    tables = [Table("How the latent is used (information and entropies as shares of log K)", header, use)]
    if found_styles:
        columns = ["posterior", "NMI", "ARI", "accuracy", "style → expert"]
        tables.append(Table("Did the experts find the styles? (after the best assignment)", columns, found_styles))
    text = "Responsibilities of held-out pairs, under the exact posterior. "
    text += (
        "Styles are known here and training never saw them."
        if found_styles
        else "The annotators' styles are not known: this tells how the latent is used, not whether it is right."
    )
    return Section("Specialisation", text, tables, pictures)


def cost(metrics: Mapping[str, Any]) -> Section:
    rows = []
    for name, policy in in_order(metrics).items():
        for k, own in enumerate(policy["by_expert"]):
            text = own["text"]
            rows.append(
                [
                    name if policy["experts"] == 1 else f"{name}, expert {k}",
                    interval(own["cost"]["kl"], 2),
                    number(own["cost"]["perplexity"], 1),
                    number(text["mean_words"], 1),
                    number(own["cost"]["finished"], 2),
                    number(text["distinct_1"]),
                    number(text["distinct_2"]),
                    number(text["self_bleu"]),
                ]
            )
    header = ["policy", "KL to SFT (nats)", "perplexity", "words", "finished", "distinct-1", "distinct-2", "self-BLEU"]
    mixtures = [
        [name, interval(policy["cost"]["kl"], 2), interval(policy["cost"]["expert_kl"], 2)]
        for name, policy in in_order(metrics).items()
        if policy["experts"] > 1
    ]
    tables = [Table("By expert", header, rows)]
    if mixtures:
        columns = ["policy", "KL of the mixture (nats)", "mean KL of its experts (nats)"]
        tables.append(Table("Mixtures as a stranger gets them", columns, mixtures))
    return Section(
        "What it cost",
        "Distance from SFT for a completion, and how varied the samples are. Perplexity is of the samples under SFT, "
        "for each word. Distinct-n falls and self-BLEU rises as a policy repeats itself.",
        tables,
    )


def truth(metrics: Mapping[str, Any]) -> Section:
    """Of a run on the embedded corpus, whose language can be read exactly."""
    found = metrics["truth"]
    names = [d for d in metrics["dimensions"] if d in found["correlation"]]
    rows = []
    for name in in_order(metrics):
        policy = found["policies"][name]
        rows.append([name, *(interval(policy["mixture"][d]) for d in names)])
        if len(policy["experts"]) > 1:
            rows += [
                [f"{name}, expert {k}", *(interval(own[d]) for d in names)] for k, own in enumerate(policy["experts"])
            ]
    agreement = [
        [dimension, "–" if value is None else number(value, 2)] for dimension, value in found["correlation"].items()
    ]
    return Section(
        "Truth",
        "The embedded corpus is a language whose sentiment, grammar and detail can be read exactly: here the judges "
        "are judged themselves.",
        [
            Table("What the samples truly are", ["policy", *names], rows),
            Table("Correlation of judge and truth", ["dimension", "Pearson's r"], agreement),
        ],
    )
