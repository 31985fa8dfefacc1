"""`mixdpo preferences`: pairs labelled by annotators with styles, or ready ones → data/labelled/preferences.parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixdpo.config import Params
from mixdpo.config.data import PreferenceFiles
from mixdpo.data.ready import read_preferences
from mixdpo.data.schema import CANDIDATES, PREFERENCES, SPLITS, read_table, write_rows
from mixdpo.files import canonical_json, digest, write_json
from mixdpo.layout import Layout
from mixdpo.rewards.styles import Candidates, Comparison, label_pairs, standardisation

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def run(params: Params, layout: Layout) -> list[Path]:
    """Write the preferences table and metrics/preferences.json.

    Raises:
        DataError: no scores, too few pairs that differ enough, or ready data that is not what it should be.
    """
    source = params.preferences.source
    if isinstance(source, PreferenceFiles):
        ready = read_preferences(source, layout.root / params.inputs, params.splits)
        rows, more = ready.rows, {"dropped": ready.dropped}
    else:
        rows = label(params, read_table(layout.validated("scores"), CANDIDATES))
        more = _labels(rows)
    write_rows(layout.labelled_preferences, rows, PREFERENCES)
    write_json(layout.metrics("preferences"), _metrics(rows) | more)
    return [layout.labelled_preferences, layout.metrics("preferences")]


def label(params: Params, table: pa.Table) -> list[dict[str, Any]]:
    """Rows of PREFERENCES; scores are standardised over the training candidates in all splits."""
    settings = params.preferences
    assert settings.annotators is not None, "params promise annotators where pairs are labelled here"
    dimensions = sorted({name for style in settings.styles.values() for name in style.weights})
    missing = [name for name in dimensions if name not in table.column_names]
    assert not missing, f"params promise that styles weigh known dimensions only, not {missing}"
    scores = np.column_stack([table[name].to_numpy() for name in dimensions])
    splits = np.array(table["split"].to_pylist())
    mean, deviation = standardisation(scores[splits == "train"], dimensions)
    rows: list[dict[str, Any]] = []
    for place, split in enumerate(SPLITS):
        own = table.filter(pa.array(splits == split))
        candidates = Candidates(
            _codes(own["prompt_id"]),
            _codes(own["completion"]),
            np.array(own["domain"].to_pylist()),
            (scores[splits == split] - mean) / deviation,
        )
        generator = np.random.default_rng([params.seed, place])
        known = {row["annotator"]: row["style"] for row in rows if row["split"] == "train"}
        comparisons = label_pairs(candidates, dimensions, settings.styles, settings.annotators, split, generator, known)
        rows.extend(_rows(comparisons, own))
    return rows


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number for each different text, in their order."""
    return np.asarray(pc.rank(column.combine_chunks(), tiebreaker="dense"), dtype=np.int64)


def _rows(comparisons: Sequence[Comparison], candidates: pa.Table) -> list[dict[str, Any]]:
    rows = []
    sides = ([getattr(each, side) for each in comparisons] for side in ("chosen", "rejected"))
    compared = (candidates.take(pa.array(places, pa.int64())).to_pylist() for places in sides)
    for each, chosen, rejected in zip(comparisons, *compared, strict=True):
        shared = {name: chosen[name] for name in ("prompt_id", "prompt", "domain", "split")}
        rows.append(
            {
                **shared,
                "pair_id": digest([each.annotator, chosen["candidate_id"], rejected["candidate_id"]]),
                "chosen": chosen["completion"],
                "rejected": rejected["completion"],
                "chosen_finished": chosen["finished"],
                "rejected_finished": rejected["finished"],
                "annotator": each.annotator,
                "style": each.style,
                "metadata": canonical_json({"gap": each.gap, "flipped": each.flipped}).decode("utf-8"),
            }
        )
    return rows


def _metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    longer = [(len(row["chosen"].split()), len(row["rejected"].split())) for row in rows]
    different = [left > right for left, right in longer if left != right]
    splits = {split: {row["annotator"] for row in rows if row["split"] == split} for split in SPLITS}
    return {
        "schema": 1,
        "pairs": len(rows),
        "prompts": len({row["prompt_id"] for row in rows}),
        "annotators": len({row["annotator"] for row in rows}),
        # whose other comparisons a policy may have learnt from
        "returning_annotators": {split: len(splits[split] & splits["train"]) for split in SPLITS[1:]},
        # a policy could win this share of pairs by length alone
        "chosen_longer": sum(different) / len(different) if different else None,
        "by_split": _count(rows, "split"),
        "by_domain": _count(rows, "domain"),
        "by_style": _count(rows, "style"),
        "annotators_by_style": _count({row["annotator"]: row for row in rows}.values(), "style"),
        "domains_by_style": {
            style: _count([row for row in rows if str(row["style"]) == style], "domain")
            for style in _count(rows, "style")
        },
    }


def _labels(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is known of labels that were made here."""
    labels = [json.loads(row["metadata"]) for row in rows]
    gaps = np.quantile([label["gap"] for label in labels], QUANTILES)
    return {
        "gap_quantiles": {f"{q:g}": float(gap) for q, gap in zip(QUANTILES, gaps, strict=True)},
        "flipped": sum(label["flipped"] for label in labels),
    }


def _count(rows: Iterable[dict[str, Any]], column: str) -> dict[str, int]:
    return dict(sorted(Counter(str(row[column]) for row in rows).items()))
