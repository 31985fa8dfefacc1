"""Implicit rewards and margins: how a policy's log-probs stand in for a reward (method.md §1, DPO eq. 5)."""

from __future__ import annotations

from torch import Tensor


def implicit_rewards(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """r_k(x, y) = β [log π_k(y|x) − log ρ(y|x)], without the partition term, which cancels in a pair.

    Args:
        policy_logps: (rows, experts) summed completion log-probs, nats.
        reference_logps: (rows,) of one reference for all experts, or (rows, experts).
        beta: KL temperature, above 0.

    Returns:
        (rows, experts), nats.
    """
    if reference_logps.dim() == 1:
        reference_logps = reference_logps[:, None]
    return beta * (policy_logps - reference_logps)


def preference_margins(
    chosen_logps: Tensor, rejected_logps: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, beta: float
) -> Tensor:
    """m_k = r_k(x, y⁺) − r_k(x, y⁻): positive where expert k agrees with the annotator.

    Args: as in `implicit_rewards`, for the chosen and the rejected completion of each pair.

    Returns:
        (pairs, experts), nats; β is in it.
    """
    return implicit_rewards(chosen_logps, chosen_reference, beta) - implicit_rewards(
        rejected_logps, rejected_reference, beta
    )
