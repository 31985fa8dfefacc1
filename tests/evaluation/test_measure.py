from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from mixdpo.config.data import Preferences
from mixdpo.data.schema import PREFERENCES
from mixdpo.errors import DataError
from mixdpo.evaluation.heldout import HeldOut, heldout_prompts
from mixdpo.evaluation.measure import Opinion, preference_part
from mixdpo.evaluation.preference import History, Judgement
from mixdpo.evaluation.samples import Prompts, sampling_seed
from mixdpo.evaluation.statistics import Bootstrap
from mixdpo.evaluation.tables import pairs_table, responsibilities_table, samples_table

DEMO = Path(__file__).parents[2] / "profiles" / "demo.yaml"


def test_only_test_pairs_are_held_out_and_an_annotators_stand_together(pairs: HeldOut) -> None:
    assert len(pairs) == 14 * 6
    assert set(pairs.columns["split"]) == {"test"}
    assert (np.diff(pairs.groups) >= 0).all()
    shuffled = pa.table(pairs.columns, schema=PREFERENCES).take(np.random.default_rng(0).permutation(len(pairs)))
    assert HeldOut.of(shuffled).columns == pairs.columns


def test_training_pairs_of_those_who_return_are_found(pairs: HeldOut) -> None:
    rows = pa.table(pairs.columns, schema=PREFERENCES).to_pylist()
    before = [{**row, "split": "train", "annotator": "a003"} for row in rows[:5]]
    strangers = [{**row, "split": "train", "annotator": "new"} for row in rows[5:7]]
    table = pa.Table.from_pylist([*rows, *before, *strangers], schema=PREFERENCES)
    found = HeldOut.of(table)
    assert {found.annotators[place] for place in found.returning} == {"a003"}
    assert len(found.returning) == 6
    earlier = HeldOut.earlier(table, found)
    assert earlier is not None
    assert earlier.columns["pair_id"] == sorted(row["pair_id"] for row in before)
    assert HeldOut.earlier(table, pairs) is None


def test_figures_of_those_who_return(pairs: HeldOut) -> None:
    back = dataclasses.replace(pairs, returning=np.flatnonzero(pairs.groups < 3))
    generator = np.random.default_rng(3)
    margins = generator.normal(size=(len(pairs), 3))
    margins[np.arange(len(pairs)), pairs.groups % 3] += 2.0
    own = Judgement(margins, np.full_like(margins, -np.log(3)), "annotator")
    single = Judgement(margins.mean(axis=1, keepdims=True), np.zeros((len(pairs), 1)), "pair")
    opinions = {
        name: Opinion.of(judgement, back, History.of(judgement, pairs.annotators, pairs.annotators))
        for name, judgement in {"dpo": single, "mix": own}.items()
    }
    part = preference_part("mix", opinions, back, Bootstrap(100, 0))["returning"]
    assert part["log_likelihood"]["clusters"] == 3
    assert part["log_likelihood"]["mean"] > part["stranger"]["log_likelihood"]["mean"]
    assert part["minus_dpo"]["log_likelihood"]["mean"] > 0
    assert preference_part("mix", opinions, pairs, Bootstrap(100, 0))["returning"] is None


def test_without_test_pairs_the_message_says_what_to_raise(pairs: HeldOut) -> None:
    table = pa.table({**pairs.columns, "split": ["train"] * len(pairs)}, schema=PREFERENCES)
    with pytest.raises(
        DataError, match=r"held-out pairs \(split test\) among the preferences, found none; raise splits"
    ):
        HeldOut.of(table)


def source(kind: str) -> Preferences:
    """The preferences section of the demo, with pairs labelled here or read from files."""
    values = yaml.safe_load(DEMO.read_text(encoding="utf-8"))["preferences"]
    if kind == "files":
        columns = dict.fromkeys(("annotator", "style", "domain", "split"), None)
        texts = {name: name for name in ("prompt", "chosen", "rejected")}
        values["source"] = {
            "kind": "files",
            "paths": ["p.csv"],
            "columns": {**texts, **columns, "metadata": []},
            "limit": None,
        }
    return Preferences.model_validate(values)


def test_held_out_prompts_come_from_the_door_that_pairs_came_by(pairs: HeldOut) -> None:
    ids = ["x", "x", "y", "z"]
    scores = pa.table(
        {"prompt_id": ids, "prompt": ids, "domain": ["m"] * 4, "split": ["test", "test", "test", "train"]}
    )
    assert {row["prompt_id"] for row in heldout_prompts(source("annotated"), scores, pairs, 9)} == {"x", "y"}
    ready = heldout_prompts(source("files"), scores.slice(0, 0), pairs, 10)
    assert len(ready) == 10
    assert {row["prompt_id"] for row in ready} <= set(pairs.columns["prompt_id"])
    assert ready[:4] == heldout_prompts(source("files"), scores, pairs, 4)
    with pytest.raises(DataError, match="expected held-out prompts"):
        heldout_prompts(source("annotated"), scores.slice(3), pairs, 9)


def test_figures_of_a_run_that_works(evaluated: dict[str, Any]) -> None:
    metrics = evaluated["metrics"]
    mix = metrics["policies"]["mix"]
    assert mix["preference"]["minus_dpo"]["log_likelihood"]["low"] > 0
    assert mix["preference"]["log_likelihood"]["clusters"] == 14
    curve = [mix["preference"]["few_shot"][m]["mean"] for m in ("0", "1", "2", "4", "8", "16")]
    assert curve == sorted(curve)
    assert curve[0] == pytest.approx(mix["preference"]["stranger"]["log_likelihood"]["mean"])
    assert curve[-1] == pytest.approx(mix["preference"]["log_likelihood"]["mean"])
    assert [mix["preference"]["few_shot"][m]["annotators"] for m in ("0", "4", "8")] == [14, 14, 0]
    assert curve[-1] < mix["preference"]["oracle"]["mean"] == pytest.approx(-np.log1p(np.exp(-3.0)))
    assert metrics["returning_annotators"] == 0
    assert mix["preference"]["returning"] is None
    assert mix["specialisation"]["annotators"]["nmi"] == pytest.approx(1.0)
    assert mix["specialisation"]["annotators"]["assignment"] == {"sentiment": 0, "grammar": 1, "informativeness": 2}
    assert mix["specialisation"]["pairs"]["nmi"] < 0.5
    for style, served in metrics["styles"].items():
        ways = served["mix"]
        assert ways["oracle"]["minus_dpo"]["low"] > 0, style
        assert ways["few_shot"]["8"]["reward"]["mean"] == pytest.approx(ways["oracle"]["reward"]["mean"], rel=0.05)
        assert ways["few_shot"]["4"]["annotators"] in (4, 5)
        assert ways["few_shot"]["16"]["annotators"] == 0
        assert ways["few_shot"]["0"]["reward"]["mean"] == pytest.approx(ways["prior"]["reward"]["mean"])
    assert metrics["policies"]["sft"]["preference"] is None
    assert metrics["policies"]["dpo"]["specialisation"] is None
    json.dumps(metrics, allow_nan=False)


def test_unknown_styles_leave_their_parts_empty_and_the_rest_as_it_is(evaluated: dict[str, Any]) -> None:
    metrics = evaluated["unknown"]
    mix = metrics["policies"]["mix"]
    assert metrics["styles"] is None
    assert mix["specialisation"]["annotators"] is None
    assert mix["specialisation"]["pairs"] is None
    assert "oracle" not in mix["preference"]
    assert mix["preference"]["by_style"] == {}
    assert mix["preference"]["worst_style"] is None
    known = evaluated["metrics"]["policies"]["mix"]["preference"]["log_likelihood"]
    assert mix["preference"]["log_likelihood"] == known


def test_tables_hold_a_row_for_each_policy_expert_and_pair(
    evaluated: dict[str, Any], pairs: HeldOut, prompts: Prompts
) -> None:
    rows = responsibilities_table(evaluated["opinions"], pairs)
    assert rows.num_rows == len(pairs) * (1 + 3)
    total = rows.group_by(["policy", "pair_id"]).aggregate([("responsibility", "sum"), ("weight", "sum")])
    np.testing.assert_allclose(total["responsibility_sum"], 1.0)
    np.testing.assert_allclose(total["weight_sum"], 1.0)
    predicted = pairs_table(evaluated["opinions"], pairs)
    assert predicted.num_rows == len(pairs) * 2
    own = predicted.filter(pc.equal(predicted["policy"], "mix"))["log_predictive"].to_numpy().mean()
    assert own == pytest.approx(evaluated["metrics"]["policies"]["mix"]["preference"]["log_likelihood"]["mean"])
    written = samples_table(list(evaluated["samples"].values()), prompts)
    assert written.num_rows == len(prompts) * 5
    assert {"judge_grammar", "annotator_grammar"} <= set(written.column_names)


def test_evaluation_samples_from_its_own_stream() -> None:
    assert sampling_seed(0) == sampling_seed(0) != sampling_seed(1)
    assert sampling_seed(0) > 1000  # far from the seeds that other stages draw with
