from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from mixdpo.config.data import Style
from mixdpo.evaluation.preference import Judgement, log_sigmoid
from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.served import Held, Taste, evidence_after, personal_weights, served
from mixdpo.evaluation.statistics import Bootstrap

BOOTSTRAP = Bootstrap(200, 0)
LIKES = Style(weights={"sentiment": 1.0}, share=1.0, domains=None)
TORN = Style(weights={"sentiment": 2.0, "grammar": -1.0}, share=1.0, domains=None)


@pytest.fixture
def sft(written: Callable[..., Samples]) -> Samples:
    generator = np.random.default_rng(0)
    scores = {name: generator.random((12, 1)) for name in ("sentiment", "grammar")}
    return written("sft", np.ones((12, 1)), scores)


@pytest.fixture
def mix(written: Callable[..., Samples], sft: Samples) -> Samples:
    """Expert 0 is two SFT standard deviations happier than SFT, expert 1 as SFT, expert 2 unhappier."""
    base, scale = sft.scores["judge"]["sentiment"], sft.scores["judge"]["sentiment"].std()
    judge = {"sentiment": base + scale * np.array([2.0, 0.0, -2.0]), "grammar": np.repeat(base, 3, axis=1)}
    return written("mix", np.tile([0.2, 0.3, 0.5], (12, 1)), judge)


def test_a_taste_is_in_standard_deviations_of_sft(sft: Samples, mix: Samples) -> None:
    taste = Taste.of(LIKES, sft)
    own = taste.reward(sft)
    assert own.mean() == pytest.approx(0.0, abs=1e-12)
    assert own.std() == pytest.approx(1.0)
    assert taste.reward(mix).mean(axis=0) == pytest.approx([2.0, 0.0, -2.0])
    torn = Taste.of(TORN, sft).reward(sft)
    judged = {name: (s - s.mean()) / s.std() for name, s in sft.scores["judge"].items()}
    np.testing.assert_allclose(torn, 2 * judged["sentiment"] - judged["grammar"])


def test_a_judge_without_variation_gives_finite_rewards(written: Callable[..., Samples]) -> None:
    flat = written("sft", np.ones((12, 1)), {"sentiment": np.full((12, 1), 0.5)})
    np.testing.assert_array_equal(Taste.of(LIKES, flat).reward(flat), 0.0)


def test_evidence_is_of_the_first_pairs_and_of_all_where_fewer() -> None:
    margins = np.random.default_rng(1).normal(size=(5, 2))
    groups = np.array([7, 3, 7, 7, 3])
    judgement = Judgement(margins, np.full((5, 2), -np.log(2)), "annotator")
    evidence = log_sigmoid(margins)
    np.testing.assert_array_equal(evidence_after(judgement, groups, 0), np.zeros((2, 2)))
    np.testing.assert_allclose(evidence_after(judgement, groups, 2), [evidence[[1, 4]].sum(0), evidence[[0, 2]].sum(0)])
    np.testing.assert_allclose(evidence_after(judgement, groups, 8)[1], evidence[[0, 2, 3]].sum(0))


def test_personal_weights_are_each_annotators_posterior_then_averaged() -> None:
    log_weights = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))
    evidence = np.array([[0.0, -1.0], [-2.0, 0.0]])
    expected = np.mean([softmax(log_weights + row, axis=1) for row in evidence], axis=0)
    np.testing.assert_allclose(personal_weights(log_weights, evidence), expected)
    np.testing.assert_allclose(personal_weights(log_weights, np.zeros((3, 2))), np.exp(log_weights))


@pytest.mark.parametrize("scale", [1.0, 30.0, 400.0])  # the last: certain annotators of other experts than the prompts'
@pytest.mark.parametrize("at_once", [1, 40, 1 << 20])
def test_personal_weights_are_the_softmax_at_any_size_and_in_any_parts(
    monkeypatch: pytest.MonkeyPatch, scale: float, at_once: int
) -> None:
    monkeypatch.setattr("mixdpo.evaluation.served.NORMALISERS_AT_ONCE", at_once)
    generator = np.random.default_rng(0)
    log_weights = log_softmax(scale * generator.normal(size=(30, 3)), axis=1)
    evidence = scale * generator.normal(size=(12, 3))
    expected = softmax(log_weights[:, None] + evidence, axis=2).mean(axis=1)
    np.testing.assert_allclose(personal_weights(log_weights, evidence), expected, rtol=1e-12, atol=1e-15)


def test_each_way_of_weighting_gives_its_own_reward(sft: Samples, mix: Samples, prompts: Prompts) -> None:
    held = Held({0: np.zeros((4, 3)), 8: np.tile([0.0, -50.0, -50.0], (4, 1))}, expert=0, pairs=np.array([3, 8, 9, 24]))
    found = served(mix, Taste.of(LIKES, sft), held, {"sft": sft}, prompts, BOOTSTRAP)
    gain = {
        name: entry["minus_sft"]["mean"]
        for name, entry in {**found, "stranger": found["few_shot"]["0"], "friend": found["few_shot"]["8"]}.items()
        if name != "few_shot"
    }
    assert gain["prior"] == pytest.approx(0.2 * 2 - 0.5 * 2)
    assert gain["uniform"] == pytest.approx(0.0, abs=1e-12)
    assert gain["oracle"] == pytest.approx(2.0)
    assert gain["stranger"] == pytest.approx(gain["prior"])
    assert gain["friend"] == pytest.approx(2.0)
    assert {m: entry["annotators"] for m, entry in found["few_shot"].items()} == {"0": 4, "8": 3}


def test_one_expert_has_no_choice_and_is_not_compared_with_itself(sft: Samples, prompts: Prompts) -> None:
    found = served(sft, Taste.of(LIKES, sft), None, {"sft": sft}, prompts, BOOTSTRAP)
    assert list(found) == ["prior"]
    assert list(found["prior"]) == ["reward"]


def test_without_held_out_annotators_there_is_no_few_shot(sft: Samples, mix: Samples, prompts: Prompts) -> None:
    assert set(served(mix, Taste.of(LIKES, sft), None, {}, prompts, BOOTSTRAP)) == {"prior", "uniform"}
