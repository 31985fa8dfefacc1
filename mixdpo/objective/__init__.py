"""The mathematics, as pure tensor functions (docs/method.md). B pairs, K experts, U annotators."""

from mixdpo.objective.bradley_terry import implicit_rewards, noisy_margins, preference_margins
from mixdpo.objective.evidence import annotator_elbo, annotator_log_likelihood, leave_one_out_weights
from mixdpo.objective.mixture import elbo, log_joint, marginal_log_likelihood, responsibilities
from mixdpo.objective.relaxation import gumbel_softmax
from mixdpo.objective.sparsity import top_experts
from mixdpo.objective.steps import balance_loss, expert_loss, gate_loss, update_epsilon, update_global_weights

__all__ = [
    "annotator_elbo",
    "annotator_log_likelihood",
    "balance_loss",
    "elbo",
    "expert_loss",
    "gate_loss",
    "gumbel_softmax",
    "implicit_rewards",
    "leave_one_out_weights",
    "log_joint",
    "marginal_log_likelihood",
    "noisy_margins",
    "preference_margins",
    "responsibilities",
    "top_experts",
    "update_epsilon",
    "update_global_weights",
]
