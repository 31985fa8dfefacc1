"""What alignment cost: how far a policy went from its reference, and how odd the reference finds what it wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from mixdpo.evaluation.samples import Prompts, Samples
from mixdpo.evaluation.statistics import Bootstrap


def expert_cost(each: Samples, expert: int, prompts: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    """Of one expert's own samples.

    Returns:
        kl: mean of log π_k(y|x) − log ρ(y|x), nats a completion: an unbiased estimate of KL(π_k ‖ ρ) where samples
            are drawn at temperature 1 and top_p 1, and a like-for-like comparison of policies elsewhere;
        perplexity: of the samples under ρ, for each word (so that it does not depend on the tokenizer);
        finished: share of completions that ended by themselves.
    """
    gap = each.logps[:, expert, expert] - each.reference_logps[:, expert]
    written = sum(max(1, len(text.split())) for text in each.completions[expert])
    return {
        "kl": bootstrap.mean(gap, prompts.groups).record(),
        "perplexity": float(np.exp(-each.reference_logps[:, expert].sum() / written)),
        "finished": float(np.mean(each.finished[expert])),
    }


def mixture_cost(each: Samples, prompts: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    """Of the mixture as a stranger gets it.

    Returns:
        kl: of log Σ_j w_j π_j(y|x) − log ρ(y|x), y from the mixture, nats a completion;
        expert_kl: Σ_k w_k KL(π_k ‖ ρ), what the objective charges (method.md §2); never below kl but for chance.
    """
    log_weights = np.log(np.maximum(each.weights, np.finfo(np.float64).tiny))
    whole = logsumexp(log_weights[:, None, :] + each.logps, axis=2)
    own = np.diagonal(each.logps, axis1=1, axis2=2)
    return {
        "kl": bootstrap.mean(each.mixture(whole - each.reference_logps), prompts.groups).record(),
        "expert_kl": bootstrap.mean(each.mixture(own - each.reference_logps), prompts.groups).record(),
    }
