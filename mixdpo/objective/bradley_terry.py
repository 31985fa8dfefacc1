"""Implicit rewards and margins: how a policy's log-probs stand in for a reward (method.md §1, DPO eq. 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def implicit_rewards(policy_logps: Tensor, reference_logps: Tensor, beta: float | Tensor) -> Tensor:
    """r_k(x, y) = β [log π_k(y|x) − log ρ_k(y|x)], without the partition term, which cancels in a pair.

    Args:
        policy_logps: (rows, experts) summed completion log-probs, nats.
        reference_logps: (rows,) of one reference for all experts, or (rows, experts).
        beta: KL temperature, above 0; one, or (experts,).

    Returns:
        (rows, experts), nats.
    """
    if reference_logps.dim() == 1:
        reference_logps = reference_logps[:, None]
    return beta * (policy_logps - reference_logps)


def preference_margins(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    chosen_reference: Tensor,
    rejected_reference: Tensor,
    beta: float | Tensor,
    lengths: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """m_k = r_k(x, y⁺) − r_k(x, y⁻): positive where expert k agrees with the annotator.

    Args: as in `implicit_rewards`, for the chosen and the rejected completion of each pair.
        lengths: (pairs,) completion tokens of chosen and rejected: rewards are then means over a completion's tokens,
            so that an expert with long completions has no larger margins for that (mixtures-fail, row 7).

    Returns:
        (pairs, experts), nats; β is in it.
    """
    chosen = implicit_rewards(chosen_logps, chosen_reference, beta)
    rejected = implicit_rewards(rejected_logps, rejected_reference, beta)
    if lengths is not None:
        chosen, rejected = chosen / lengths[0][:, None], rejected / lengths[1][:, None]
    return chosen - rejected


def noisy_margins(margins: Tensor, epsilon: float | Tensor) -> Tensor:
    """m' with σ(m') = (1−ε) σ(m) + ε σ(−m): the margin that a label has which is flipped with probability ε.

    Every formula of the mixture takes m' where it takes m, so noise needs no second set of formulas. |m'| never
    exceeds log((1−ε)/ε): no single label, however wrong, is evidence without bound (method.md §6).

    Args:
        margins: any shape, nats.
        epsilon: in [0, ½).

    >>> import torch
    >>> noisy_margins(torch.tensor([0.0, 1e4]), 0.1)
    tensor([0.0000, 2.1972])
    """
    share = torch.as_tensor(epsilon, dtype=margins.dtype, device=margins.device)
    agrees, differs = F.logsigmoid(margins), F.logsigmoid(-margins)
    kept, flipped = torch.log1p(-share), torch.log(share)
    return torch.logaddexp(kept + agrees, flipped + differs) - torch.logaddexp(flipped + agrees, kept + differs)
