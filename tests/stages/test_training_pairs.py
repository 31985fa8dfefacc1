"""What the trainer is given of the pairs, and what the weights are shown of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from mixdpo.config import Params
from mixdpo.config.weights import GateWeights
from mixdpo.data.schema import PREFERENCES, read_table, write_table
from mixdpo.errors import DataError, TrainingError
from mixdpo.layout import Layout
from mixdpo.policy.loading import load_causal_lm
from mixdpo.policy.weighting import PriorWeights, Weighting, new_weighting
from mixdpo.stages import reference
from mixdpo.stages.training_pairs import load_context, load_pairs

GATE = {"kind": "gate", "hidden": 0, "entropy": 0.0, "rest_steps": 0, "learning_rate": 0.1}
EVERYTHING = GATE | {"annotators": {"width": 2, "unknown": 0.5}, "metadata": ["stars", "domain"]}


@pytest.fixture(scope="module")
def project(toy_project: Layout, toy_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The toy project with stars for two pairs of three, and the reference's log-probs."""
    layout = Layout(tmp_path_factory.mktemp("pairs"))
    shutil.copytree(toy_project.sft, layout.sft)
    rows = read_table(toy_project.validated("preferences"), PREFERENCES).to_pylist()
    for place, row in enumerate(rows):
        row["metadata"] = json.dumps({"stars": place % 5} if place % 3 else {})
    write_table(layout.validated("preferences"), rows, PREFERENCES)
    reference.run(toy_params, layout)
    return layout


@pytest.fixture(scope="module")
def tokenizer(project: Layout) -> PreTrainedTokenizerBase:
    return load_causal_lm(project.sft)[1]


def gate(params: Params, layout: Layout, **changes: Any) -> Weighting:
    weights = GateWeights.model_validate(EVERYTHING | changes)
    return new_weighting(weights, 3, load_context(params, layout, "test"), torch.Generator().manual_seed(0))


def test_the_context_is_what_the_tables_say(toy_params: Params, project: Layout) -> None:
    context = load_context(toy_params, project, "test")
    rows = read_table(project.validated("preferences"), PREFERENCES).to_pylist()
    assert list(context.prompts) == [row["prompt"] for row in rows]
    assert list(context.annotators or ()) == [row["annotator"] for row in rows]
    assert list(context.metadata["domain"]) == [row["domain"] for row in rows]
    assert list(context.metadata["stars"]) == [place % 5 if place % 3 else None for place in range(len(rows))]
    assert len(load_context(toy_params, project, "train")) == 0


def test_pairs_come_with_what_their_weights_depend_on(
    toy_params: Params, project: Layout, tokenizer: PreTrainedTokenizerBase
) -> None:
    weighting = gate(toy_params, project)
    pairs = load_pairs(toy_params, project, tokenizer, "test", weighting)
    context = load_context(toy_params, project, "test")
    torch.testing.assert_close(pairs.features, weighting.encode(context), rtol=0, atol=0)
    names = [pairs.annotator_names[code] for code in pairs.annotators.tolist()]
    assert names == list(context.annotators or ())
    assert len(set(pairs.annotator_names)) == len(pairs.annotator_names) == len(pairs.annotators.unique())
    assert load_pairs(toy_params, project, tokenizer, "test", PriorWeights.uniform(3)).features.shape == (len(pairs), 0)


def test_some_pairs_are_shown_as_from_strangers_always_the_same(
    toy_params: Params, project: Layout, tokenizer: PreTrainedTokenizerBase
) -> None:
    weighting = gate(toy_params, project)
    plain = load_pairs(toy_params, project, tokenizer, "test", weighting)
    shown = load_pairs(toy_params, project, tokenizer, "test", weighting, strangers=0.5)
    hidden = shown.features[:, -1] == 0
    assert (plain.features[:, -1] > 0).all()
    assert 0.2 < hidden.float().mean() < 0.8
    assert torch.equal(shown.features[~hidden], plain.features[~hidden])
    assert torch.equal(shown.features[:, :-1], plain.features[:, :-1])
    assert torch.equal(shown.annotators, plain.annotators)  # evidence still adds up over all of a person's pairs
    again = load_pairs(toy_params, project, tokenizer, "test", weighting, strangers=0.5)
    assert torch.equal(again.features, shown.features)


def test_a_column_that_the_pairs_lack_is_named(toy_params: Params, project: Layout) -> None:
    with pytest.raises(DataError, match="names starz, but the training pairs have domain, stars; correct the name"):
        gate(toy_params, project, metadata=["starz"])


def test_a_cache_of_other_pairs_is_refused(
    toy_params: Params, project: Layout, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    shutil.copytree(project.root, layout.root, dirs_exist_ok=True)
    rows = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    write_table(layout.validated("preferences"), rows[1:], PREFERENCES)
    for load in (
        lambda: load_context(toy_params, layout, "test"),
        lambda: load_pairs(toy_params, layout, tokenizer, "test", PriorWeights.uniform(3)),
    ):
        with pytest.raises(TrainingError, match=r"were computed from other preferences; run `mixdpo reference`"):
            load()
