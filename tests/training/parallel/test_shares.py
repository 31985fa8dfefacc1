from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo.errors import ConfigError
from mixdpo.policy.tokens import TokenRow
from mixdpo.training.parallel.shares import expert_spans, grid, pair_cost, rows_of, share_out

counts = st.integers(1, 12)


@given(counts, counts)
def test_every_expert_is_held_once_and_shares_differ_by_one_at_most(experts: int, ranks: int) -> None:
    if ranks > experts:
        with pytest.raises(ConfigError, match=rf"{ranks} ranks cannot share {experts} experts.*up to {experts} ranks"):
            expert_spans(experts, ranks)
        return
    spans = expert_spans(experts, ranks)
    assert [expert for span in spans for expert in span] == list(range(experts))
    assert max(map(len, spans)) - min(map(len, spans)) <= 1


@given(st.lists(st.integers(1, 100)), counts)
def test_every_pair_is_run_once_and_no_rank_has_much_more_to_do(costs: list[int], ranks: int) -> None:
    shares = share_out(costs, ranks)
    assert len(shares) == ranks
    assert sorted(place for share in shares for place in share) == list(range(len(costs)))
    loads = [sum(costs[place] for place in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)


@given(counts, counts, counts)
def test_one_setting_makes_a_grid_for_any_number_of_experts(data: int, experts: int, policy: int) -> None:
    shared, rows = grid(data, experts, policy)
    assert shared * rows == data * experts
    assert rows <= min(experts, policy)
    if experts <= policy:
        assert (shared, rows) == (data, experts)


def test_a_prompt_counts_once_and_both_rows_of_a_pair_stay_together() -> None:
    assert pair_cost(TokenRow([1, 2, 3], [4]), TokenRow([1, 2, 3], [5, 6])) == 6
    assert rows_of([0, 3], 5) == [0, 3, 5, 8]
