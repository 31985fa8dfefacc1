from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from mixdpo.config import parse_params
from mixdpo.data.schema import PREFERENCES, SPLITS, read_table, scores_schema, text_id, write_table
from mixdpo.errors import DataError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.stages.preferences import run

ROOT = Path(__file__).parents[2]
DIMENSIONS = ("sentiment", "grammar", "informativeness")
ANNOTATORS = {"train": 12, "validation": 3, "test": 6, "pairs": 5, "noise": 0.0, "min_gap": 0.1}


def params(source=None, **annotators):
    values = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text())
    values["preferences"]["annotators"] = ANNOTATORS | annotators
    if source:
        values["preferences"]["source"] = source
    return parse_params(values)


def scored(prompts=40, each=3):
    generator = np.random.default_rng(0)
    return [
        {
            "candidate_id": f"{place}-{number}",
            "prompt_id": text_id(f"The film {place}"),
            "prompt": f"The film {place}",
            "completion": " was" + " very" * int(generator.integers(5)) + f" number {number}.",
            "finished": number > 0,
            "domain": ("movie", "book")[place % 2],
            "split": SPLITS[place % 3],
        }
        | dict(zip(DIMENSIONS, generator.random(3), strict=True))
        for place in range(prompts)
        for number in range(each)
    ]


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path)
    write_table(layout.validated("scores"), scored(), scores_schema(DIMENSIONS))
    return layout


def test_annotators_label_pairs_of_their_own_split(layout):
    assert run(params(), layout) == [layout.labelled_preferences, layout.metrics("preferences")]
    rows = read_table(layout.labelled_preferences, PREFERENCES).to_pylist()
    by_place = {(row["prompt_id"], row["completion"]): row for row in scored()}
    assert len(rows) == 5 * (12 + 3 + 6) == len({row["pair_id"] for row in rows})
    assert set(Counter(row["annotator"] for row in rows).values()) == {5}
    for row in rows:
        assert row["annotator"].startswith(f"{row['split']}-")
        chosen, rejected = (by_place[row["prompt_id"], row[name]] for name in ("chosen", "rejected"))
        # each style of the demo has one dimension of its own name
        assert chosen[row["style"]] > rejected[row["style"]]
        assert (row["chosen_finished"], row["rejected_finished"]) == (chosen["finished"], rejected["finished"])
        for name in ("prompt", "domain", "split"):
            assert row[name] == chosen[name] == rejected[name]
        assert json.loads(row["metadata"])["gap"] >= 0.1


def test_known_annotators_return_where_asked(layout):
    run(params(returning=0.5), layout)
    rows = read_table(layout.labelled_preferences, PREFERENCES).to_pylist()
    styles = {(row["annotator"], row["style"]) for row in rows}
    assert len(styles) == 12 + 3 + 6 - 3
    assert read_json(layout.metrics("preferences"))["returning_annotators"] == {"validation": 0, "test": 3}


def test_metrics_count_what_was_labelled(layout):
    run(params(noise=0.3), layout)
    rows = read_table(layout.labelled_preferences, PREFERENCES).to_pylist()
    metrics = read_json(layout.metrics("preferences"))
    assert (metrics["schema"], metrics["pairs"], metrics["annotators"]) == (1, len(rows), 21)
    assert metrics["annotators_by_style"] == {"grammar": 7, "informativeness": 7, "sentiment": 7}
    for column in ("split", "domain", "style"):
        assert metrics[f"by_{column}"] == dict(Counter(row[column] for row in rows))
    assert metrics["returning_annotators"] == {"validation": 0, "test": 0}
    assert metrics["flipped"] == sum(json.loads(row["metadata"])["flipped"] for row in rows) > 0
    assert 0.1 <= metrics["gap_quantiles"]["0"] <= metrics["gap_quantiles"]["1"]
    longer = [len(row["chosen"].split()) - len(row["rejected"].split()) for row in rows]
    different = [gap for gap in longer if gap]
    assert metrics["chosen_longer"] == sum(gap > 0 for gap in different) / len(different)


def test_two_runs_are_identical_and_another_seed_differs(layout):
    run(params(), layout)
    first = layout.labelled_preferences.read_bytes()
    run(params(), layout)
    assert layout.labelled_preferences.read_bytes() == first
    run(params().model_copy(update={"seed": 1}), layout)
    assert layout.labelled_preferences.read_bytes() != first


def test_ready_preferences_come_in_by_the_second_door(layout):
    settings = params(
        {
            "kind": "files",
            "paths": ["*.jsonl"],
            "columns": dict.fromkeys(("style", "domain", "split"))
            | {"prompt": "q", "chosen": "good", "rejected": "bad", "annotator": "who", "metadata": []},
            "limit": None,
        }
    )
    inputs = layout.root / settings.inputs
    inputs.mkdir(parents=True)
    pairs = [{"q": f"p{place % 7}", "good": "yes it is", "bad": "no", "who": f"a{place % 3}"} for place in range(20)]
    (inputs / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    run(settings, layout)
    assert read_table(layout.labelled_preferences, PREFERENCES).num_rows == 20
    metrics = read_json(layout.metrics("preferences"))
    assert (metrics["pairs"], metrics["annotators"], metrics["chosen_longer"]) == (20, 3, 1.0)
    assert metrics["dropped"] == {"ties": 0, "few_pairs": 0, "above_annotator": 0, "above_limit": 0}
    # each of the three has compared every prompt, so all are known wherever there are pairs at all
    assert metrics["returning_annotators"] == {name: 3 * (name in metrics["by_split"]) for name in SPLITS[1:]}
    assert "flipped" not in metrics


def test_too_few_pairs_leaves_the_earlier_table(layout):
    run(params(), layout)
    before = layout.labelled_preferences.read_bytes()
    with pytest.raises(DataError, match=r"style \w+: only \d+ pairs of \d+ train prompts .* differ by"):
        run(params(min_gap=9.0), layout)
    assert layout.labelled_preferences.read_bytes() == before


def test_no_scores_at_all(layout):
    write_table(layout.validated("scores"), [], scores_schema(DIMENSIONS))
    with pytest.raises(DataError, match="there are no scored training candidates; run `mixdpo candidates`"):
        run(params(), layout)
