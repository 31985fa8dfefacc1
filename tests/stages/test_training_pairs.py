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
from mixdpo.files import file_digest
from mixdpo.layout import Layout
from mixdpo.policy.loading import load_causal_lm
from mixdpo.policy.weighting import PriorWeights, Weighting, new_weighting
from mixdpo.stages import reference, training_pairs
from mixdpo.stages.training_pairs import TrainingPairs

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
    return new_weighting(weights, 3, TrainingPairs(params, layout).context("test"), torch.Generator().manual_seed(0))


def test_the_context_is_what_the_tables_say(toy_params: Params, project: Layout) -> None:
    given = TrainingPairs(toy_params, project)
    context = given.context("test")
    rows = read_table(project.validated("preferences"), PREFERENCES).to_pylist()
    assert list(context.prompts) == [row["prompt"] for row in rows]
    assert list(context.annotators or ()) == [row["annotator"] for row in rows]
    assert list(context.metadata["domain"]) == [row["domain"] for row in rows]
    assert list(context.metadata["stars"]) == [place % 5 if place % 3 else None for place in range(len(rows))]
    assert len(given.context("train")) == 0


def test_pairs_come_with_what_their_weights_depend_on(
    toy_params: Params, project: Layout, tokenizer: PreTrainedTokenizerBase
) -> None:
    weighting = gate(toy_params, project)
    given = TrainingPairs(toy_params, project)
    pairs = given.pairs(tokenizer, "test", weighting)
    context = given.context("test")
    torch.testing.assert_close(pairs.features, weighting.encode(context), rtol=0, atol=0)
    names = [pairs.annotator_names[code] for code in pairs.annotators.tolist()]
    assert names == list(context.annotators or ())
    assert len(set(pairs.annotator_names)) == len(pairs.annotator_names) == len(pairs.annotators.unique())
    assert given.pairs(tokenizer, "test", PriorWeights.uniform(3)).features.shape == (len(pairs), 0)


def test_some_pairs_are_shown_as_from_strangers_always_the_same(
    toy_params: Params, project: Layout, tokenizer: PreTrainedTokenizerBase
) -> None:
    weighting = gate(toy_params, project)
    plain = TrainingPairs(toy_params, project).pairs(tokenizer, "test", weighting)
    shown = TrainingPairs(toy_params, project).pairs(tokenizer, "test", weighting, strangers=0.5)
    hidden = shown.features[:, -1] == 0
    assert (plain.features[:, -1] > 0).all()
    assert 0.2 < hidden.float().mean() < 0.8
    assert torch.equal(shown.features[~hidden], plain.features[~hidden])
    assert torch.equal(shown.features[:, :-1], plain.features[:, :-1])
    assert torch.equal(shown.annotators, plain.annotators)  # evidence still adds up over all of a person's pairs
    again = TrainingPairs(toy_params, project).pairs(tokenizer, "test", weighting, strangers=0.5)
    assert torch.equal(again.features, shown.features)


def test_a_column_that_the_pairs_lack_is_named(toy_params: Params, project: Layout) -> None:
    with pytest.raises(DataError, match="names starz, but the training pairs have domain, stars; correct the name"):
        gate(toy_params, project, metadata=["starz"])


@pytest.fixture
def layout(project: Layout, tmp_path: Path) -> Layout:
    """The project again, for tests that change it."""
    shutil.copytree(project.root, tmp_path, dirs_exist_ok=True)
    return Layout(tmp_path)


def test_completions_that_the_reference_never_saw_are_refused(
    toy_params: Params, layout: Layout, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = read_table(layout.validated("preferences"), PREFERENCES).to_pylist()
    write_table(layout.validated("preferences"), rows[::-1][1:], PREFERENCES)
    TrainingPairs(toy_params, layout).pairs(tokenizer, "test", PriorWeights.uniform(3))  # fewer, in another order
    other = [rows[0] | {"chosen": " is new"}, rows[1] | {"rejected_finished": True}, *rows[2:]]
    write_table(layout.validated("preferences"), other, PREFERENCES)
    with pytest.raises(TrainingError, match=r"other preferences: it lacks 2 of \d+ completions; run `mixdpo ref"):
        TrainingPairs(toy_params, layout).pairs(tokenizer, "test", PriorWeights.uniform(3))
    write_table(layout.validated("preferences"), [rows[0] | {"prompt": "New"}, *rows[1:]], PREFERENCES)
    with pytest.raises(TrainingError, match=r"other preferences: it lacks 1 of \d+ prompts; run `mixdpo reference`"):
        TrainingPairs(toy_params, layout).context("test").prompt_features()


def test_a_whole_training_hashes_and_reads_once(
    toy_params: Params, layout: Layout, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    opened = Path.open

    def noting(path: Path, *arguments: Any, **named: Any) -> Any:
        read.append(path.name)
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", noting)  # what digests are taken with
    given = TrainingPairs(toy_params, layout)
    monkeypatch.setattr(training_pairs, "read_table", None)
    weighting = new_weighting(
        GateWeights.model_validate(EVERYTHING), 3, given.context("test"), torch.Generator().manual_seed(0)
    )
    for split in ("test", "test", "train"):
        given.pairs(tokenizer, split, weighting)
    assert read.count("model.safetensors") == read.count("preferences.parquet") == 1
    assert given.digests["preferences"] == file_digest(layout.validated("preferences"))
