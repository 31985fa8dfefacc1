"""New mixtures from experts that were trained in others over the same base (reuse without training)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mixdpo.errors import ConfigError, ModelError
from mixdpo.policy.base import architecture_difference, base_of, reference_difference, tensor_difference
from mixdpo.policy.experts import Experts, SharedTrunk
from mixdpo.policy.likelihood import Likelihood
from mixdpo.policy.mixture import MixturePolicy
from mixdpo.policy.weighting import PriorWeights

REMEDY = "compose experts of mixtures that were trained from one SFT model with the same architecture"


def compose(parts: Sequence[tuple[MixturePolicy, int]], names: Sequence[str] | None = None) -> MixturePolicy:
    """A mixture of experts of others, with uniform weights: each gives exactly the log-probs that it had.

    Nothing is trained. A gate over the new experts is learned by a policy whose `start` names them (docs/registry.md).
    β is each expert's own; the rate of label noise is the parts' mean. The parts are taken over: what does not differ
    between experts (reference, frozen trunk) is shared with the first.

    Args:
        parts: a mixture and one of its experts, in the order of the new experts.
        names: what to call the parts in messages and in the new mixture's description, such as reviews@v1/expert-0.

    Raises:
        ConfigError: no parts, or an expert that does not exist.
        ModelError: the parts are of different bases, or were trained on differently measured margins.
    """
    if not parts:
        raise ConfigError("no experts to compose; give at least one")
    called = [f"part {place}" for place in range(len(parts))] if names is None else list(names)
    for name, (policy, expert) in zip(called, parts, strict=True):
        if not 0 <= expert < policy.experts:
            raise ConfigError(f"{name}: expert {expert} does not exist, its mixture has 0 to {policy.experts - 1}")
        _refuse_misfit(called[0], *parts[0], name, policy, expert)
    first, kept = parts[0]
    experts = first.expert_models.select([kept] * len(parts))
    for place, (policy, expert) in enumerate(parts):
        copy_expert(policy.expert_models, expert, experts, place)
    betas = [policy.likelihood.beta.tolist() for policy, _ in parts]
    epsilon = sum(policy.likelihood.epsilon.item() for policy, _ in parts) / len(parts)
    likelihood = Likelihood(
        [beta[expert] if len(beta) > 1 else beta[0] for beta, (_, expert) in zip(betas, parts, strict=True)],
        first.likelihood.per_token,
        epsilon,
    )
    latent = "annotator" if any(policy.latent == "annotator" for policy, _ in parts) else "pair"
    base = base_of(first, kept)
    description = {"architecture": dict(base.architecture), "composed": called}
    return MixturePolicy(
        experts, PriorWeights.uniform(len(parts)), base.reference, base.tokenizer, likelihood, latent, description
    )


@torch.no_grad()
def copy_expert(source: Experts, expert: int, target: Experts, place: int) -> None:
    """Make expert `place` of `target` equal to expert `expert` of `source`, in place. Shared trunks are left alone."""
    old, new = source.expert_parameters(expert), target.expert_parameters(place)
    for (values, row), (parameter, at) in zip(old, new, strict=True):
        (parameter if at is None else parameter[at]).copy_(values if row is None else values[row])


def _refuse_misfit(
    wanted: str, first: MixturePolicy, first_expert: int, name: str, policy: MixturePolicy, expert: int
) -> None:
    bases = base_of(first, first_expert), base_of(policy, expert)
    if difference := architecture_difference(*bases) or reference_difference(*bases):
        raise ModelError(f"{name} does not fit {wanted}: it has {difference}; {REMEDY}")
    one, other = first.expert_models, policy.expert_models
    if isinstance(one, SharedTrunk) and isinstance(other, SharedTrunk):  # noqa: SIM102 (types are told one by one)
        if difference := tensor_difference(one.trunk, other.trunk):
            raise ModelError(
                f"{name} does not fit {wanted}: their trunks were trained apart ({difference}), and a mixture of this "
                f"architecture has one; compose experts of one of them, or train both with trunk: frozen"
            )
    if first.likelihood.per_token != policy.likelihood.per_token:
        kinds = ["token" if each.likelihood.per_token else "sum" for each in (policy, first)]
        raise ModelError(
            f"{name} does not fit {wanted}: it was trained with margins: {kinds[0]}, expected {kinds[1]}; {REMEDY}"
        )
