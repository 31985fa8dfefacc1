from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mixdpo.candidates.writer import PolicyWriter
from mixdpo.config import Params
from mixdpo.config.data import PreferenceFiles
from mixdpo.data.embedded import generate_reviews
from mixdpo.data.schema import CANDIDATES, REVIEWS, read_table, text_id, write_table
from mixdpo.errors import DataError, ModelError
from mixdpo.files import read_json
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.stages import candidates

WANTED = {"train": 4, "validation": 2, "test": 3}


@pytest.fixture
def layout(toy_project: Layout, tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    shutil.copytree(toy_project.sft, layout.sft)
    splits = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    rows = [
        {"review_id": text_id(review["text"]), "text": review["text"], "domain": "book", "split": split}
        for review, split in zip(generate_reviews(40, 10, seed=0), splits, strict=True)
    ]
    write_table(layout.validated("reviews"), rows, REVIEWS)
    return layout


@pytest.fixture
def params(toy_params: Params) -> Params:
    values = toy_params.candidates.model_dump() | {"prompts": WANTED, "per_prompt": 3}
    return toy_params.model_copy(update={"candidates": type(toy_params.candidates).model_validate(values)})


def table(layout: Layout) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(layout.candidates, CANDIDATES).to_pylist()
    return rows


def test_openings_of_reviews_are_completed_in_their_split(params: Params, layout: Layout) -> None:
    assert candidates.run(params, layout) == [layout.candidates, layout.metrics("candidates")]
    rows = table(layout)
    split = {row["prompt"]: row["split"] for row in rows}
    assert {name: list(split.values()).count(name) for name in WANTED} == WANTED
    reviews = read_table(layout.validated("reviews"), REVIEWS).to_pylist()
    for row in rows:
        assert row["prompt_id"] == text_id(row["prompt"])
        assert any(
            " ".join(review["text"].split()).startswith(row["prompt"])
            for review in reviews
            if review["split"] == row["split"]
        )
        assert row["finished"] or row["completion"].strip()
    assert len({row["candidate_id"] for row in rows}) == len(rows) <= 3 * 9
    metrics = read_json(layout.metrics("candidates"))
    assert (metrics["prompts"], metrics["candidates"]) == (9, len(rows))
    assert metrics["finished_fraction"] == sum(row["finished"] for row in rows) / len(rows)


def test_they_come_from_the_seed_and_not_from_the_batch_size(params: Params, layout: Layout) -> None:
    candidates.run(params, layout)
    first = table(layout)
    smaller = params.candidates.model_copy(update={"batch": 2})
    candidates.run(params.model_copy(update={"candidates": smaller}), layout)
    assert table(layout) == first
    candidates.run(params.model_copy(update={"seed": 1}), layout)
    assert [row["completion"] for row in table(layout)] != [row["completion"] for row in first]


def test_they_do_not_depend_on_shards_and_a_killed_run_goes_on(
    params: Params, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates.run(params, layout)
    whole = table(layout)
    layout.candidates.unlink()
    monkeypatch.setattr(candidates, "SHARD", 2)
    written: list[int] = []
    real = PolicyWriter.write

    def switched_off(self: PolicyWriter, prompts: Sequence[str], first: int) -> tuple[list[str], list[bool]]:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(first)
        return real(self, prompts, first)

    monkeypatch.setattr(PolicyWriter, "write", switched_off)
    with pytest.raises(KeyboardInterrupt):
        candidates.run(params, layout)
    assert not layout.candidates.exists()
    written.append(-1)
    candidates.run(params, layout)
    # nine openings, three rows each
    assert written == [0, 6, 12, -1, 18, 24]
    assert table(layout) == whole
    assert not list(layout.work("", "").parent.iterdir())


def test_they_are_what_the_sft_policy_says(params: Params, layout: Layout) -> None:
    candidates.run(params, layout)
    policy = MixturePolicy.from_causal_lm(layout.sft)
    prompts = list(dict.fromkeys(row["prompt"] for row in table(layout)))
    asked = [prompt for prompt in prompts for _ in range(3)]
    written = policy.generate(asked, max_new_tokens=6, seed=params.seed)
    kept = [
        (prompt, text)
        for prompt, text, end in zip(asked, written.texts, written.finished, strict=True)
        if end or text.strip()
    ]
    assert [(row["prompt"], row["completion"]) for row in table(layout)] == kept


def test_ready_preferences_need_no_candidates(params: Params, layout: Layout) -> None:
    names = ("prompt", "chosen", "rejected", "annotator", "style", "domain", "split")
    columns = {name: name for name in names} | {"metadata": []}
    source = PreferenceFiles.model_validate(
        {"kind": "files", "paths": ["pairs.jsonl"], "columns": columns, "limit": None}
    )
    preferences = params.preferences.model_copy(update={"source": source})
    shutil.rmtree(layout.sft)
    candidates.run(params.model_copy(update={"preferences": preferences}), layout)
    assert table(layout) == []
    assert read_json(layout.metrics("candidates"))["finished_fraction"] is None


def test_too_few_reviews_and_a_missing_model_are_said(params: Params, layout: Layout) -> None:
    more = type(params.candidates).model_validate(
        params.candidates.model_dump() | {"prompts": {"train": 1, "validation": 500, "test": 1}}
    )
    with pytest.raises(DataError, match="split validation has 10 different openings of 3 to 6 words, but candidates"):
        candidates.run(params.model_copy(update={"candidates": more}), layout)
    shutil.rmtree(layout.sft)
    layout.sft.mkdir()
    with pytest.raises(ModelError, match="the directory is not a causal language model"):
        candidates.run(params, layout)
