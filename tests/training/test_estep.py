from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixdpo.config.estep import Tempering
from mixdpo.errors import TrainingError
from mixdpo.objective import responsibilities
from mixdpo.objective.mixture import group_evidence
from mixdpo.training.estep import EStep

Make = Callable[..., Any]
PLAIN = Tempering(start=1.0, steps=0)
GUMBEL = {"straight_through": False, "start": 2.0, "floor": 0.1, "steps": 10, "shape": "exponential"}


@pytest.fixture(scope="module")
def pairs(make_task: Make) -> Any:
    """Six annotators with four pairs each."""
    return make_task([3, 3], each=4).pairs


def logits_of(pairs: Any, experts: int = 3, seed: int = 0) -> Tensor:
    return 2 * torch.randn(len(pairs), experts, generator=torch.Generator().manual_seed(seed))


def weights_of(pairs: Any, experts: int = 3) -> Tensor:
    return torch.randn(len(pairs), experts, generator=torch.Generator().manual_seed(9)).log_softmax(dim=-1)


def estep_of(pairs: Any, policy: Any, batch_pairs: int = 1000, tempering: Tempering = PLAIN, seed: int = 0) -> EStep:
    return EStep(policy, tempering, pairs, policy.experts, batch_pairs, seed)


@pytest.mark.parametrize("latent", ["pair", "annotator"])
def test_without_options_it_is_the_exact_posterior(latent: str, pairs: Any, make_policy: Make) -> None:
    everyone = list(range(len(pairs)))
    logits, log_weights = logits_of(pairs), weights_of(pairs)
    assigned = estep_of(pairs, make_policy(3, latent=latent))(0, everyone, logits, log_weights)
    wanted = responsibilities(logits, log_weights, pairs.annotators if latent == "annotator" else None)
    torch.testing.assert_close(assigned.pairs, wanted)
    torch.testing.assert_close(assigned.beliefs, wanted)
    assert len(assigned.units) == (6 if latent == "annotator" else len(pairs))
    torch.testing.assert_close(assigned.units[assigned.member], wanted)
    assert assigned.dropped == 0


def test_an_annotator_with_one_pair_is_a_pair(make_task: Make, make_policy: Make) -> None:
    pairs = make_task([4, 4], each=1).pairs
    logits, log_weights = logits_of(pairs), weights_of(pairs)
    both = [
        estep_of(pairs, make_policy(3, latent=latent))(0, list(range(len(pairs))), logits, log_weights).pairs
        for latent in ("pair", "annotator")
    ]
    torch.testing.assert_close(both[0], both[1])


def test_the_temperature_starts_high_and_ends_exact(pairs: Any, make_policy: Make) -> None:
    everyone, logits, log_weights = list(range(len(pairs))), logits_of(pairs), weights_of(pairs)
    tempered = estep_of(pairs, make_policy(3), tempering=Tempering(start=4.0, steps=8, shape="exponential"))
    entropies = [
        torch.special.entr(tempered(step, everyone, logits, log_weights).pairs).sum(dim=-1).mean().item()
        for step in (0, 4, 8)
    ]
    assert entropies[0] > entropies[1] > entropies[2]
    exact = responsibilities(logits, log_weights, pairs.annotators)
    torch.testing.assert_close(tempered(8, everyone, logits, log_weights).pairs, exact)


class TestCarriedEvidence:
    """Annotators that a batch cannot hold whole."""

    def test_an_annotator_who_is_whole_in_the_batch_has_no_memory(self, pairs: Any, make_policy: Make) -> None:
        estep = estep_of(pairs, make_policy(3), batch_pairs=2)
        everyone, log_weights = list(range(len(pairs))), weights_of(pairs)
        for seed in range(3):
            logits = logits_of(pairs, seed=seed)
            found = estep(seed, everyone, logits, log_weights).pairs
            torch.testing.assert_close(found, responsibilities(logits, log_weights, pairs.annotators))

    def test_parts_add_up_to_the_evidence_of_all_pairs(self, pairs: Any, make_policy: Make) -> None:
        """With margins that stay as they are, the mean over many visits is the evidence of the whole annotator."""
        estep = estep_of(pairs, make_policy(3), batch_pairs=2)
        assert estep.evidence is not None
        mine = (pairs.annotators == 0).nonzero()[:, 0].tolist()
        logits, log_weights = logits_of(pairs), weights_of(pairs)
        generator, seen = torch.Generator().manual_seed(0), []
        for visit in range(600):
            part = [mine[place] for place in torch.randperm(4, generator=generator)[:2].tolist()]
            estep(visit, part, logits[part], log_weights[part])
            if visit >= 20:
                seen.append(estep.evidence[0].clone())
        whole = group_evidence(logits[mine], torch.zeros(4, dtype=torch.long), 1)[0]
        torch.testing.assert_close(torch.stack(seen).mean(dim=0), whole, rtol=0.05, atol=0.05)

    def test_they_make_a_surer_posterior_than_each_part_alone(self, make_task: Make, make_policy: Make) -> None:
        pairs = make_task([1, 1], each=40).pairs
        logits = torch.tensor([0.4, -0.4]).repeat(len(pairs), 1)
        log_weights = torch.full((len(pairs), 2), 0.5).log()
        sure = {}
        for carry in (1.0, 0.0):
            estep = estep_of(pairs, make_policy(2, carry=carry), batch_pairs=4)
            for step in range(10):
                part = list(range(4 * step, 4 * step + 4))
                q = estep(step, part, logits[part], log_weights[part]).pairs
            sure[carry] = q[0, 0].item()
        assert sure[0.0] == pytest.approx(responsibilities(logits[:4], log_weights[:4], torch.zeros(4))[0, 0].item())
        assert sure[1.0] > 0.99 > sure[0.0]

    def test_no_table_is_kept_where_all_fit(self, pairs: Any, make_policy: Make) -> None:
        assert estep_of(pairs, make_policy(3), batch_pairs=4).evidence is None
        assert estep_of(pairs, make_policy(3, latent="pair"), batch_pairs=2).evidence is None


class TestSymmetryBreaking:
    def test_a_partition_is_one_hot_the_same_at_every_step_and_then_over(self, pairs: Any, make_policy: Make) -> None:
        estep = estep_of(pairs, make_policy(3, symmetry={"kind": "partition", "steps": 2}))
        everyone, logits, log_weights = list(range(len(pairs))), logits_of(pairs), weights_of(pairs)
        first, second, third = (estep(step, everyone, logits, log_weights).pairs for step in range(3))
        assert ((first == 0) | (first == 1)).all()
        assert torch.equal(first, second)
        assert torch.equal(first, first[[pairs.annotators.tolist().index(code) for code in pairs.annotators]])
        torch.testing.assert_close(third, responsibilities(logits, log_weights, pairs.annotators))

    def test_anchors_stay_and_the_others_are_free(self, pairs: Any, make_policy: Make) -> None:
        anchors = {"kind": "anchors", "annotators": {"annotator-0": 2, "annotator-4": 1}}
        estep = estep_of(pairs, make_policy(3, symmetry=anchors))
        logits, log_weights = logits_of(pairs), weights_of(pairs)
        q = estep(99, list(range(len(pairs))), logits, log_weights).pairs
        free = responsibilities(logits, log_weights, pairs.annotators)
        for code, expert in ((0, 2), (4, 1)):
            assert (q[pairs.annotators == code, expert] == 1).all()
        others = (pairs.annotators != 0) & (pairs.annotators != 4)
        torch.testing.assert_close(q[others], free[others])

    def test_an_anchor_who_compared_nothing_is_refused(self, pairs: Any, make_policy: Make) -> None:
        anchors = {"kind": "anchors", "annotators": {"annotator-0": 2, "nobody": 1}}
        with pytest.raises(TrainingError, match="names nobody, who compared nothing in the training split; name anno"):
            estep_of(pairs, make_policy(3, symmetry=anchors))


class TestRelaxation:
    def test_an_annotators_pairs_share_one_draw_and_the_beliefs_stay_exact(self, pairs: Any, make_policy: Make) -> None:
        everyone, logits, log_weights = list(range(len(pairs))), logits_of(pairs), weights_of(pairs)
        assigned = estep_of(pairs, make_policy(3, relaxation=GUMBEL))(5, everyone, logits, log_weights)
        exact = responsibilities(logits, log_weights, pairs.annotators)
        torch.testing.assert_close(assigned.beliefs, exact)
        assert (assigned.pairs - exact).abs().max() > 0.05
        for code in range(6):
            rows = assigned.pairs[pairs.annotators == code]
            assert (rows == rows[0]).all()

    def test_the_draw_is_that_of_seed_and_step(self, pairs: Any, make_policy: Make) -> None:
        everyone, logits, log_weights = list(range(len(pairs))), logits_of(pairs), weights_of(pairs)

        def draw(step: int, seed: int) -> Tensor:
            return estep_of(pairs, make_policy(3, relaxation=GUMBEL), seed=seed)(
                step, everyone, logits, log_weights
            ).pairs

        assert torch.equal(draw(3, 0), draw(3, 0))
        assert not torch.equal(draw(3, 0), draw(4, 0))
        assert not torch.equal(draw(3, 0), draw(3, 1))

    def test_at_the_floor_it_is_nearly_a_one_hot(self, pairs: Any, make_policy: Make) -> None:
        cold = GUMBEL | {"floor": 1e-4}
        everyone, logits, log_weights = list(range(len(pairs))), logits_of(pairs), weights_of(pairs)
        q = estep_of(pairs, make_policy(3, relaxation=cold))(10, everyone, logits, log_weights).pairs
        assert q.max(dim=-1).values.min() > 0.99


class TestSparsity:
    @pytest.mark.parametrize("by", ["weights", "responsibilities"])
    @pytest.mark.parametrize("latent", ["pair", "annotator"])
    def test_s_experts_take_part_and_the_rest_is_told(
        self, by: str, latent: str, pairs: Any, make_policy: Make
    ) -> None:
        everyone, logits, log_weights = list(range(len(pairs))), logits_of(pairs), weights_of(pairs)
        policy = make_policy(3, latent=latent, sparsity={"top": 2, "by": by})
        assigned = estep_of(pairs, policy)(0, everyone, logits, log_weights)
        assert ((assigned.pairs > 0).sum(dim=-1) == 2).all()
        torch.testing.assert_close(assigned.pairs.sum(dim=-1), torch.ones(len(pairs)))
        exact = responsibilities(logits, log_weights, pairs.annotators if latent == "annotator" else None)
        kept = torch.where(assigned.pairs > 0, exact, 0.0)
        torch.testing.assert_close(assigned.pairs, kept / kept.sum(dim=-1, keepdim=True))
        if latent == "pair":
            assert assigned.dropped == pytest.approx(1 - kept.sum(dim=-1).mean().item(), abs=1e-6)
        if by == "responsibilities":
            assert assigned.dropped <= 1 / 3

    def test_weights_that_say_nothing_drop_nobody(self, pairs: Any, make_policy: Make) -> None:
        uniform = torch.full((len(pairs), 3), 1 / 3).log()
        policy = make_policy(3, sparsity={"top": 1, "by": "weights"})
        assigned = estep_of(pairs, policy)(0, list(range(len(pairs))), logits_of(pairs), uniform)
        assert (assigned.pairs > 0).all()
        assert assigned.dropped == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("by", ["weights", "responsibilities"])
    def test_all_of_k_is_the_dense_computation(self, by: str, pairs: Any, make_policy: Make) -> None:
        everyone, logits, log_weights = list(range(len(pairs))), logits_of(pairs), weights_of(pairs)
        dense = estep_of(pairs, make_policy(3))(0, everyone, logits, log_weights)
        sparse = estep_of(pairs, make_policy(3, sparsity={"top": 3, "by": by}))(0, everyone, logits, log_weights)
        torch.testing.assert_close(sparse.pairs, dense.pairs)
        assert sparse.dropped == pytest.approx(0, abs=1e-6)
