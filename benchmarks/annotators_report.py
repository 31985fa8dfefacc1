"""What the runs of annotators.py found: tables, a picture, and figures.json beside the runs.

    python benchmarks/annotators_report.py --picture held-out.png

Likelihoods and accuracies are means over seeds, pair by pair; intervals are over annotators (bootstrap).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
from annotators import OUT, PROJECT, Run, pairs_of
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from mixdpo.config import Params, load_params
from mixdpo.config.data import PreferenceFiles
from mixdpo.data.ready import read_preferences
from mixdpo.evaluation.baselines import consensus, length_gap, length_tastes
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.markdown import interval, number
from mixdpo.evaluation.markdown import table as markdown
from mixdpo.evaluation.plots import MARKERS, POLICY_COLOURS, panels, save, styled
from mixdpo.evaluation.preference import History, Ids, Judgement, hits, log_predictive
from mixdpo.evaluation.served import COMPARISONS
from mixdpo.evaluation.statistics import Bootstrap, Floats
from mixdpo.files import write_json
from mixdpo.layout import Layout

BySeed = dict[int, Floats]  # seed -> log p of each test pair

# one expert; one expert on the batches of `annotator` mixtures; the same policy with nothing known of the annotator
BASES = ("dpo", "annotator-1", "itself")
TITLES = {"training": "training topics", "others": "test topics"}
ENOUGH = 8  # pairs on each side, for a taste to be compared across topics


def conditions(run: Run, arrays: dict[str, Any], train: HeldOut, test: HeldOut) -> dict[str, Floats]:
    """log p of each test pair under what may be known of its annotator, by name of the condition.

    stranger      nothing; a personal gate knows whom it met in training
    others        their other test pairs, each left out in turn
    training      all their training pairs
    all           both
    training m    the first m of their training pairs (or all, where there are fewer)
    others m      m of their other test pairs (or all others)
    """
    latent: Any = "pair" if run.kind in ("dpo", "pair") else "annotator"
    before, later = (
        Judgement(arrays[f"{split}_margins"], arrays[f"{split}_log_weights"], latent) for split in ("train", "test")
    )

    def predict(comparisons: int | None, most: int | None) -> Floats:
        history = None if most == 0 else History.of(before, train.annotators, test.annotators, most)
        return log_predictive(later, test.groups, comparisons, history)

    found = {
        "stranger": predict(0, 0),
        "others": predict(None, 0),
        "training": predict(0, None),
        "all": predict(None, None),
    }
    found |= {f"training {m}": predict(0, m) for m in COMPARISONS}
    return found | {f"others {m}": predict(m, 0) for m in COMPARISONS}


@click.command(help=(__doc__ or "").split("\n")[0])
@PROJECT
@OUT
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Where to draw it.")
def main(project: Path, out: Path, picture: Path | None) -> None:
    params, layout = load_params(project / "params.yaml"), Layout(project.resolve())
    train, test = pairs_of(layout, "train"), pairs_of(layout, "test")
    bootstrap = Bootstrap(params.evaluation.bootstrap, params.seed)
    scores: dict[str, dict[str, BySeed]] = {}
    finished = [Run.named(path.stem) for path in out.glob("*-seed*.safetensors")]
    for run in sorted(finished, key=lambda run: (run.experts, run.kind != "dpo", run.kind, run.seed)):
        for name, values in conditions(run, load_file(out / f"{run.name}.safetensors"), train, test).items():
            scores.setdefault(run.variant, {}).setdefault(name, {})[run.seed] = values
    if "dpo" not in scores:
        raise click.ClickException(f"{out} has no finished run of dpo; run benchmarks/annotators.py first")
    bases = {name: scores[name]["stranger"] for name in BASES if name in scores}
    for kinds in (1, 2, 3):
        own = conditions(Run("length", kinds, 0), length_judgements(train, test, kinds), train, test)
        scores[f"length-{kinds}"] = {
            name: dict.fromkeys(scores["dpo"]["stranger"], values) for name, values in own.items()
        }
    trained = pairs_of(Layout((out / "project").resolve()), "train")
    met = set(trained.annotators)
    groups = {
        "all": np.arange(len(test)),
        "met": np.array([place for place, name in enumerate(test.annotators) if name in met]),
    }
    figures = {
        who: {
            variant: {
                name: figure(values, bases | {"itself": own["stranger"]}, rows, test.groups, bootstrap)
                for name, values in own.items()
            }
            for variant, own in scores.items()
        }
        for who, rows in groups.items()
    }
    about = {"pairs": sizes(train, trained, test), "people": people(params, layout, train, test, bootstrap)}
    write_json(out / "figures.json", {"schema": 1, **about, "variants": figures})
    click.echo(json.dumps(about, indent=1))
    for who, own in figures.items():
        click.echo(f"\nTest pairs of {who} annotators\n\n{tables(own)}")
    if picture:
        save(draw(figures["all"], about["pairs"]["having"]), picture)


def length_judgements(train: HeldOut, test: HeldOut, kinds: int) -> dict[str, Floats]:
    """What a mixture of tastes for length makes of the pairs, in the arrays of a run; one kind is the baseline."""
    gaps = [length_gap(pairs.columns["chosen"], pairs.columns["rejected"]) for pairs in (train, test)]
    slopes, shares = length_tastes(gaps[0], train.groups, kinds)
    found = {}
    for split, gap in zip(("train", "test"), gaps, strict=True):
        found[f"{split}_margins"] = gap[:, None] * slopes
        found[f"{split}_log_weights"] = np.tile(np.log(shares), (len(gap), 1))
    return found


def figure(values: BySeed, bases: dict[str, BySeed], rows: Ids, groups: Ids, bootstrap: Bootstrap) -> dict[str, Any]:
    """Likelihood (nats a pair) and accuracy on these rows, and what is gained over each of `bases`.

    Means over seeds, pair by pair; a gain is over the seeds that both have, None where there are none.
    """

    def minus(base: BySeed) -> dict[str, float] | None:
        both = [(values[seed][rows], base[seed][rows]) for seed in values if seed in base]
        return bootstrap.difference(*np.mean(both, axis=0), groups[rows]).record() if both else None

    own = [each[rows] for each in values.values()]
    return {
        "log_likelihood": bootstrap.mean(np.mean(own, axis=0), groups[rows]).record(),
        "accuracy": bootstrap.mean(np.mean([hits(each) for each in own], axis=0), groups[rows]).record(),
        "minus": {name: minus(base) for name, base in bases.items()},
        "seeds": {str(seed): float(each[rows].mean()) for seed, each in values.items()},
    }


def sizes(train: HeldOut, trained: HeldOut, test: HeldOut) -> dict[str, Any]:
    """Pairs and people, and how many of the test annotators have at least m training pairs, or m other test pairs.

    `trained` are the pairs that the policies learnt from, which may be fewer.
    """
    before, own = Counter(train.annotators), Counter(test.annotators)
    return {
        "training": len(train),
        "trained": len(trained),
        "test": len(test),
        "annotators": len(own),
        "returning": sum(name in before for name in own),
        "met": len(set(trained.annotators) & set(own)),
        "having": {
            m: {"training": sum(before[name] >= m for name in own), "others": sum(count > m for count in own.values())}
            for m in COMPARISONS
        },
    }


def people(params: Params, layout: Layout, train: HeldOut, test: HeldOut, bootstrap: Bootstrap) -> dict[str, Any]:
    """How far people agree with each other on a pair, and with themselves from topic to topic about length.

    `consensus` counts the labels of all annotators of the files, also those who are left out of the project.
    """
    gap = length_gap(test.columns["chosen"], test.columns["rejected"])
    agree = everyone(params, layout, test)
    judged = np.isfinite(agree)
    shares = [longer_shares(pairs) for pairs in (train, test)]
    both = sorted(set(shares[0]) & set(shares[1]))
    correlation = np.corrcoef([[own[name] for name in both] for own in shares])[0, 1] if len(both) > 2 else None
    return {
        "longer": bootstrap.mean(0.5 + 0.5 * np.sign(gap), test.groups).record(),
        "consensus": bootstrap.mean(agree[judged], test.groups[judged]).record(),
        "length_taste": {
            "correlation": None if correlation is None else float(correlation),
            "annotators": len(both),
        },
    }


def everyone(params: Params, layout: Layout, test: HeldOut) -> Floats:
    """`consensus` for each test pair."""
    source, columns = params.preferences.source, test.columns
    names = ("pair_id", "annotator", "prompt", "chosen", "rejected")
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(columns[name] for name in names), strict=True)]
    if isinstance(source, PreferenceFiles):
        whole = source.model_copy(update={"min_pairs": None, "per_annotator": None, "limit": None})
        rows = read_preferences(whole, layout.root / params.inputs, params.splits).rows
    pairs = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    found = consensus(pairs, [row["annotator"] for row in rows])
    agreement = dict(zip((row["pair_id"] for row in rows), found, strict=True))
    return np.array([agreement[pair_id] for pair_id in columns["pair_id"]])


def longer_shares(pairs: HeldOut) -> dict[str, float]:
    """How often each annotator of enough pairs chose the longer text."""
    longer = length_gap(pairs.columns["chosen"], pairs.columns["rejected"]) > 0
    counts = Counter(pairs.annotators)
    wins = Counter(name for name, won in zip(pairs.annotators, longer, strict=True) if won)
    return {name: wins[name] / count for name, count in counts.items() if count >= ENOUGH}


def tables(figures: dict[str, Any]) -> str:
    """Likelihood, difference to DPO and accuracy under each condition; then likelihood by number of comparisons."""
    rows = []
    for variant, own in figures.items():
        shown = ("stranger",) if _learns_nothing(variant) else tuple(own)[:4]
        for name in shown:
            entry = own[name]
            rows.append(
                [
                    f"{variant}, {name}" if len(shown) > 1 else variant,
                    interval(entry["log_likelihood"]),
                    *(interval(entry["minus"].get(base), sign=True) for base in BASES),
                    interval(entry["accuracy"]),
                    " ".join(number(value) for value in entry["seeds"].values()),
                ]
            )
    gains = [f"minus {base}" for base in BASES]
    header = ["policy, known of the annotator", "log-likelihood", *gains, "accuracy", "seeds"]
    parts = [markdown(header, rows)]
    for which in ("training", "others"):
        few = [
            [variant, *(number(own[f"{which} {m}"]["log_likelihood"]["mean"], 4) for m in COMPARISONS)]
            for variant, own in figures.items()
        ]
        parts.append(markdown([f"{which} pairs known", *map(str, COMPARISONS)], few))
    return "\n\n".join(parts)


def _learns_nothing(variant: str) -> bool:
    """One expert, or one latent a pair: what else a person said changes nothing."""
    return variant == "dpo" or variant.endswith("-1") or variant.startswith("pair")


@styled
def draw(figures: dict[str, Any], having: dict[int, dict[str, int]]) -> Figure:
    """What comparisons of training topics (left) and of test topics (right) add to a policy's held-out likelihood."""
    drawing, axes = panels(2, height=3.6, columns=2)
    mixtures = {name: own for name, own in figures.items() if not _learns_nothing(name)}
    places = np.arange(len(COMPARISONS))
    for ax, which in zip(axes, ("training", "others"), strict=True):
        for place, (variant, own) in enumerate(mixtures.items()):
            curve = [own[f"{which} {m}"]["minus"]["itself"] for m in COMPARISONS]
            mean, low, high = (np.array([each[part] for each in curve]) for part in ("mean", "low", "high"))
            look = {"color": POLICY_COLOURS[1 + place % (len(POLICY_COLOURS) - 1)], "label": variant}
            shift = 0.09 * (place - (len(mixtures) - 1) / 2)
            marker = MARKERS[place % len(MARKERS)]
            ax.errorbar(places + shift, mean, [mean - low, high - mean], marker=marker, markersize=4, **look)
        ax.axhline(0, color="#7a7a7a", linewidth=0.8)
        ax.set_xticks(places, [f"{m}\n({having[m][which]})" for m in COMPARISONS])
        ax.set(title=f"known: {TITLES[which]}", xlabel="comparisons (annotators who have them)")
        ax.grid(axis="y")
    axes[0].set_ylabel("gain over knowing none (nats a pair)")
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawing


if __name__ == "__main__":
    main()
