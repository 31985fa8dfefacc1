from __future__ import annotations

import numpy as np
import pytest

from mixdpo.studies.labelling import CROSSED, OWN, PLAIN, compare
from mixdpo.studies.setting import Setting, load_study_params
from mixdpo.studies.world import World


@pytest.fixture(scope="module")
def base(world: World) -> Setting:
    return load_study_params(world.layout.study_params).base


def test_annotators_are_those_asked_for_and_splits_share_nobody(world: World, base: Setting) -> None:
    found = compare(world, base, seed=0)
    people = [{row["annotator"] for row in rows} for rows in (found.train, found.validation)]
    assert [len(each) for each in people] == [12, 3]
    assert not people[0] & people[1]
    assert len(found.train) == 12 * 4
    assert len(found.heldout[OWN]) == 9 * 4


def test_the_seed_chooses_the_annotators(world: World, base: Setting) -> None:
    ids = [[row["pair_id"] for row in compare(world, base, seed).train] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("worse", [{"score_noise": 2.0}, {"scores": "judge"}])
def test_worse_scores_change_what_is_learned_from_but_not_the_test(
    world: World, base: Setting, worse: dict[str, object]
) -> None:
    exact, other = compare(world, base, seed=0), compare(world, base.changed(labelling=worse), seed=0)
    assert [row["pair_id"] for row in exact.train] != [row["pair_id"] for row in other.train]
    assert exact.heldout[OWN].columns == other.heldout[OWN].columns


def test_crossed_prompts_are_labelled_by_the_same_people(world: World, base: Setting) -> None:
    found = compare(world, base.changed(crossed=4), seed=0)
    assert set(found.heldout) == {OWN, PLAIN, CROSSED}
    for name in (PLAIN, CROSSED):
        columns = found.heldout[name].columns
        assert set(columns["annotator"]) == set(found.heldout[OWN].columns["annotator"])
        assert len(set(columns["prompt"])) <= 8
    assert not set(found.heldout[PLAIN].columns["prompt"]) & set(found.heldout[CROSSED].columns["prompt"])


def test_the_world_is_computed_once_and_agrees_with_itself(world: World) -> None:
    again = World.load(world.params, world.layout)
    np.testing.assert_array_equal(again.logps, world.logps)
    assert np.isfinite(world.logps).all()
    assert (world.logps < 0).all()
    assert world.judged.shape == (world.candidates.num_rows, 3)
    first = {name: world.candidates[name][5].as_py() for name in ("prompt", "completion", "finished")}
    assert world.logp(**first) == world.logps[5]
    prompts = world.candidates["prompt"].to_pylist()
    features = world.prompt_features(prompts[:9])
    assert features.equal(again.prompt_features(prompts[:9]))
