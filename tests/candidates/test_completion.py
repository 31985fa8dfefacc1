from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mixdpo.candidates.completion import OPENINGS, Completion, complete, openings_table
from mixdpo.config.models import Candidates, Device
from mixdpo.data.prompts import Prompt
from mixdpo.data.schema import CANDIDATES, text_id
from mixdpo.errors import DataError, ModelError

PROMPTS = [Prompt(f"the film was {word}", "movie" if n % 2 else "book", "train") for n, word in enumerate("abcdefg")]


@pytest.fixture(scope="session")
def task(model: Path, settings: Candidates, cpu: Device) -> Completion:
    return Completion(model, settings, cpu, seed=3)


@pytest.fixture(scope="session")
def whole(task: Completion) -> pa.Table:
    return task.load()(openings_table(PROMPTS))


@pytest.mark.parametrize("size", [1, 3, 6])
def test_results_do_not_depend_on_how_openings_are_sharded(size: int, task: Completion, whole: pa.Table) -> None:
    openings, work = openings_table(PROMPTS), task.load()
    shards = [openings.slice(start, size) for start in range(0, len(openings), size)]
    # the last shard first: no shard knows of those before
    done = [work(shard) for shard in reversed(shards)]
    assert pa.concat_tables(reversed(done)).equals(whole)


def test_each_opening_is_completed_so_often_and_keeps_what_is_known_of_it(whole: pa.Table) -> None:
    assert whole.schema == CANDIDATES
    rows = whole.to_pylist()
    known = {prompt.text: prompt for prompt in PROMPTS}
    assert [row["prompt"] for row in rows] == [prompt.text for prompt in PROMPTS for _ in range(3)]
    for place, row in enumerate(rows):
        assert (row["domain"], row["split"]) == known[row["prompt"]][1:]
        assert row["prompt_id"] == text_id(row["prompt"])
        assert row["candidate_id"] == f"{row['prompt_id'][:16]}-{place % 3}"
    assert len({row["completion"] for row in rows}) > 18


class Silent:
    """Says nothing, and ends every second text."""

    def write(self, prompts: list[str], first: int) -> tuple[list[str], list[bool]]:
        return ["  "] * len(prompts), [(first + place) % 2 == 0 for place in range(len(prompts))]


def test_a_text_of_nothing_is_kept_only_where_the_model_ended_it() -> None:
    rows = complete(Silent(), 2, openings_table(PROMPTS).slice(1, 3)).to_pylist()
    assert [(row["prompt"], row["finished"]) for row in rows] == [(prompt.text, True) for prompt in PROMPTS[1:4]]
    assert all(row["candidate_id"].endswith("-0") for row in rows)


def test_a_shard_of_nothing_is_a_table_of_nothing() -> None:
    assert complete(Silent(), 2, openings_table([])).equals(CANDIDATES.empty_table())
    assert openings_table([]).equals(OPENINGS.empty_table())


def test_a_shard_with_a_gap_is_refused() -> None:
    with pytest.raises(DataError, match="do not follow each other; give a slice of the table of all openings"):
        complete(Silent(), 2, openings_table(PROMPTS).take([0, 2]))


def test_a_missing_model_is_said_when_the_task_is_loaded(tmp_path: Path, settings: Candidates, cpu: Device) -> None:
    with pytest.raises(ModelError, match="the directory is not a causal language model"):
        Completion(tmp_path, settings, cpu, seed=0).load()
