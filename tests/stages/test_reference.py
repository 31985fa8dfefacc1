from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixdpo.config import Params
from mixdpo.data.schema import PREFERENCES, read_table, write_table
from mixdpo.errors import DataError, ModelError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.policy.weighting import PriorWeights
from mixdpo.reference import frozen, store
from mixdpo.reference.known import Known
from mixdpo.stages import reference
from mixdpo.stages.training_pairs import TrainingPairs


@pytest.fixture
def layout(toy_project: Layout, tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    shutil.copytree(toy_project.sft, layout.sft)
    shutil.copytree(toy_project.validated("preferences").parent, layout.validated("preferences").parent)
    return layout


def test_the_cache_holds_what_the_model_says(toy_params: Params, layout: Layout) -> None:
    assert reference.run(toy_params, layout) == [layout.reference, layout.metrics("reference")]
    pairs = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    policy = MixturePolicy.from_causal_lm(layout.sft)
    given = TrainingPairs(toy_params, layout)
    cached = given.pairs(policy.tokenizer, "test", PriorWeights.uniform(1))
    features = given.context("test").prompt_features()
    assert cached.ids == [pair["pair_id"] for pair in pairs]
    for place in (0, 7, len(pairs) - 1):
        pair = pairs[place]
        for side, found in (("chosen", cached.chosen_reference), ("rejected", cached.rejected_reference)):
            wanted = policy.reference_logps([pair["prompt"]], [pair[side]], [pair[f"{side}_finished"]])
            torch.testing.assert_close(found[place : place + 1], wanted, rtol=0, atol=1e-4)
        torch.testing.assert_close(features[place : place + 1], policy.prompt_features([pair["prompt"]]))
    people = [pair["annotator"] for pair in pairs]
    assert [people.index(name) for name in people] == [
        cached.annotators.tolist().index(code) for code in cached.annotators.tolist()
    ]


def test_each_completion_and_prompt_is_scored_once(toy_params: Params, layout: Layout) -> None:
    pairs = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    pairs += [pair | {"pair_id": f"again-{pair['pair_id']}", "annotator": "somebody else"} for pair in pairs]
    write_table(layout.validated("preferences"), pairs, PREFERENCES)
    reference.run(toy_params, layout)
    metrics = read_json(layout.metrics("reference"))
    different = {(pair["prompt"], pair[side]) for pair in pairs for side in ("chosen", "rejected")}
    assert metrics["pairs"] == len(pairs)
    assert metrics["different_completions"] == len(different) <= len(pairs)
    prompts = {pair["prompt"] for pair in pairs}
    assert metrics["prompts"] == len(prompts) == len(Known.read(layout.reference / reference.FEATURES))


def test_only_what_is_new_is_computed_and_nothing_where_the_model_is_the_same(
    toy_params: Params, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    reference.run(toy_params, layout)
    before = {path.name: path.read_bytes() for path in layout.reference.iterdir()}
    shutil.rmtree(layout.reference)  # as DVC does before it runs the stage
    monkeypatch.setattr(reference, "load_causal_lm", None)
    reference.run(toy_params, layout)
    assert {path.name: path.read_bytes() for path in layout.reference.iterdir()} == before
    monkeypatch.undo()

    scored: list[int] = []
    score = frozen.score_rows
    monkeypatch.setattr(frozen, "score_rows", lambda m, r, p: (scored.append(len(r)), score(m, r, p))[1])
    grown = [*rows, rows[0] | {"pair_id": "new", "chosen": " is new", "rejected": rows[1]["rejected"]}]
    write_table(layout.validated("preferences"), grown, PREFERENCES)
    reference.run(toy_params, layout)
    different = {(row["prompt"], row[side]) for row in grown for side in ("chosen", "rejected")}
    assert len(scored) == 1
    assert 1 <= scored[0] <= 2
    assert read_json(layout.metrics("reference"))["different_completions"] == len(different)

    weights = load_file(layout.sft / "model.safetensors")
    shifted = {name: tensor + 0.02 for name, tensor in weights.items()}
    save_file(shifted, layout.sft / "model.safetensors", metadata={"format": "pt"})
    mean = read_json(layout.metrics("reference"))["mean_logp"]
    reference.run(toy_params, layout)
    assert scored[1:] == [len(different)]
    assert read_json(layout.metrics("reference"))["mean_logp"] != mean


def test_a_run_that_was_stopped_keeps_what_it_had_computed(
    toy_params: Params, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SEGMENT", 10)
    scored: list[int] = []
    score = frozen.score_rows

    def stopping(models: Any, rows: Any, precision: Any) -> Any:
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(len(rows))
        return score(models, rows, precision)

    monkeypatch.setattr(frozen, "score_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        reference.run(toy_params, layout)
    assert not layout.reference.exists()
    monkeypatch.setattr(frozen, "score_rows", lambda m, r, p: (scored.append(len(r)), score(m, r, p))[1])
    reference.run(toy_params, layout)
    assert sum(scored) == read_json(layout.metrics("reference"))["different_completions"]


def test_log_probs_that_are_no_numbers_are_refused(toy_params: Params, layout: Layout) -> None:
    weights = load_file(layout.sft / "model.safetensors")
    (positions,) = (name for name in weights if name.endswith("wpe.weight"))
    weights[positions][6] = float("nan")
    save_file(weights, layout.sft / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"the SFT policy gives .* no finite number for .* use another model"):
        reference.run(toy_params, layout)
    assert not layout.reference.exists()


def test_no_pairs_are_refused(toy_params: Params, layout: Layout) -> None:
    write_table(layout.validated("preferences"), [], PREFERENCES)
    with pytest.raises(DataError, match=r"preferences.parquet has no pairs; loosen the stages before, then run them"):
        reference.run(toy_params, layout)
    assert not layout.reference.exists()
