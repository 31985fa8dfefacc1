from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo.config import load_params
from mixdpo.config.data import HubSource
from mixdpo.config.models import PretrainedReward

PROFILES = sorted((Path(__file__).parents[2] / "profiles").glob("*.yaml"))


def test_the_promised_profiles_are_there():
    assert {path.stem for path in PROFILES} >= {"demo", "reviews", "imdb", "imdb-books"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_is_complete_and_knows_its_name(path):
    params = load_params(path)
    assert params.profile == path.stem
    assert set(params.policies) == {"dpo", "mix", "moe"}
    assert params.candidates.prompt_words[1] <= params.cleaning.min_words


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_what_comes_from_the_hub_names_a_revision(path):
    params = load_params(path)
    if isinstance(params.source, HubSource):
        assert all(part.revision for part in params.source.sets)
        assert params.sft.base.revision
    for dimension in params.rewards.dimensions.values():
        for model in (dimension.annotator, dimension.judge):
            assert not isinstance(model, PretrainedReward) or len(model.revision) == 40
