from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixdpo.config import Params
from mixdpo.data.schema import PREFERENCES, read_table, write_table
from mixdpo.errors import DataError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.policy.weighting import PriorWeights
from mixdpo.stages import reference
from mixdpo.stages.training_pairs import load_context, load_pairs


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
    cached = load_pairs(toy_params, layout, policy.tokenizer, "test", PriorWeights.uniform(1))
    features = load_context(toy_params, layout, "test").prompt_features()
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
    assert metrics["prompts"] == len(prompts) == len(load_file(layout.reference / "features.safetensors")["features"])


def test_no_pairs_are_refused(toy_params: Params, layout: Layout) -> None:
    write_table(layout.validated("preferences"), [], PREFERENCES)
    with pytest.raises(DataError, match=r"preferences.parquet has no pairs; loosen the stages before, then run them"):
        reference.run(toy_params, layout)
    assert not layout.reference.exists()
