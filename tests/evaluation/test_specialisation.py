from __future__ import annotations

import numpy as np
import pytest

from mixdpo.evaluation.specialisation import assign, latent_use, margin_spread, recovery, routing

STYLES = ["a"] * 10 + ["b"] * 10 + ["c"] * 10


def one_hot(experts: list[int], count: int = 3) -> np.ndarray:
    return np.eye(count)[experts]


def test_perfect_recovery_whatever_experts_are_called() -> None:
    q = one_hot([2] * 10 + [0] * 10 + [1] * 10)
    found = recovery(q, STYLES)
    assert (found["nmi"], found["ari"], found["accuracy"]) == pytest.approx((1.0, 1.0, 1.0))
    assert found["assignment"] == {"a": 2, "b": 0, "c": 1}
    assert found["matrix"]["a"] == [0.0, 0.0, 1.0]


def test_permuting_experts_changes_names_only() -> None:
    q = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
    order = [1, 2, 0]
    one, other = recovery(q, STYLES), recovery(q[:, order], STYLES)
    assert (one["nmi"], one["ari"], one["accuracy"]) == pytest.approx((other["nmi"], other["ari"], other["accuracy"]))
    assert {style: order[expert] for style, expert in other["assignment"].items()} == one["assignment"]


def test_collapsed_experts_recover_nothing() -> None:
    found = recovery(one_hot([0] * 30), STYLES)
    assert found["nmi"] == 0.0
    assert found["ari"] == 0.0
    assert found["accuracy"] == pytest.approx(1 / 3)


def test_fewer_experts_than_styles_share_and_more_leave_some_idle() -> None:
    shared = assign(one_hot([0] * 10 + [1] * 20, 2), STYLES)
    assert shared["a"] == 0
    assert {shared["b"], shared["c"]} == {1}
    idle = assign(one_hot([4] * 10 + [1] * 10 + [3] * 10, 5), STYLES)
    assert idle == {"a": 4, "b": 1, "c": 3}


def test_latent_use_at_its_extremes() -> None:
    perfect = latent_use(one_hot([0, 1, 2] * 4), np.full((12, 3), 1 / 3))
    assert perfect["mutual_information"] == pytest.approx(np.log(3))
    assert perfect["mutual_information_share"] == pytest.approx(1.0)
    assert perfect["entropy_q"] == pytest.approx(0.0)
    assert perfect["entropy_w"] == pytest.approx(1.0)
    assert perfect["effective_experts"] == pytest.approx(3.0)
    unused = latent_use(np.full((12, 3), 1 / 3), np.full((12, 3), 1 / 3))
    assert unused["mutual_information"] == pytest.approx(0.0, abs=1e-12)
    collapsed = latent_use(one_hot([1] * 12), np.full((12, 3), 1 / 3))
    assert collapsed["mutual_information"] == 0.0
    assert collapsed["effective_experts"] == pytest.approx(1.0)
    assert collapsed["usage"] == [0.0, 1.0, 0.0]


def test_routing_is_by_domain_and_counts_the_annotators_own_expert() -> None:
    weights = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    found = routing(weights, ["film", "film", "book", "book"], ["a", "a", "b", "b"], {"a": 0, "b": 1})
    assert found["by_domain"]["film"] == pytest.approx([0.85, 0.15])
    assert found["accuracy"] == 0.75
    assert routing(weights, ["film"] * 4, None, {})["accuracy"] is None
    assert routing(np.full((4, 2), 0.5), ["film"] * 4, ["a"] * 4, {"a": 0})["accuracy"] is None


def test_margin_spread_is_zero_for_equal_experts_only() -> None:
    margins = np.random.default_rng(1).normal(size=(20, 1))
    assert margin_spread(np.repeat(margins, 3, axis=1)) == pytest.approx(0.0, abs=1e-12)
    assert margin_spread(np.array([[1.0, -1.0]])) == 1.0
