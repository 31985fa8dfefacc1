"""params.yaml: one policy, its experts, its weights and its options; and which options contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixdpo.config.architecture import Architecture
from mixdpo.config.base import Count, Natural, NonNegative, Positive, Section
from mixdpo.config.estep import Anchors, Gumbel, LabelNoise, Sparsity, Symmetry
from mixdpo.config.options import Growth, Reseed, Start, Starts
from mixdpo.config.weights import DomainWeights, FixedWeights, GateWeights, GlobalWeights, Weights


class Policy(Section):
    """One mixture. Options with a default are off by default: a profile names those that it uses."""

    experts: Count
    architecture: Architecture
    weights: Weights
    latent: Literal["pair", "annotator"]  # what shares one expert (method.md §6)
    symmetry: Symmetry
    betas: tuple[Positive, ...] | None = None  # KL temperature of each expert, in place of training.beta
    margins: Literal["sum", "token"] = "sum"  # log-ratios of whole completions, or a token of them
    noise: LabelNoise | None = None
    carry: Annotated[float, Field(ge=0, le=1)] = 1.0  # of the evidence on annotators larger than a batch; 0: none
    relaxation: Gumbel | None = None
    sparsity: Sparsity | None = None
    nll: NonNegative = 0.0  # weight of -log pi_k(chosen) a token, against likelihood displacement
    starts: Starts | None = None
    reseed: Reseed | None = None
    growth: Growth | None = None
    references: tuple[str, ...] | None = None  # one causal LM an expert, below `inputs`; none given: the SFT policy
    # experts to start from, in order: those of a version (name@v3) or one (name@v3/expert-1), or of a mixture's
    # directory below `inputs`; experts beyond them start from the SFT policy
    start: tuple[Start, ...] = ()
    frozen: tuple[Natural, ...] = ()  # experts that stay as they start

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        if fault := next(_contradictions(self), None):
            raise ValueError(fault)
        return self


def _contradictions(policy: Policy) -> Iterator[str]:
    """What cannot be meant, with the remedy."""
    experts, weights = policy.experts, policy.weights
    if isinstance(weights, FixedWeights) and weights.values is not None and len(weights.values) != experts:
        yield f"weights has {len(weights.values)} values but experts is {experts}; give one an expert"
    if isinstance(weights, GateWeights) and experts == 1 and policy.growth is None:
        yield "a gate over one expert has nothing to choose; use weights of kind fixed"
    if isinstance(weights, DomainWeights) and max(weights.experts.values()) >= experts:
        yield f"weights.experts names expert {max(weights.experts.values())}; there are 0 to {experts - 1}"
    if policy.betas is not None and len(policy.betas) != experts:
        yield f"betas has {len(policy.betas)} values but experts is {experts}; give one an expert, or leave it out"
    if policy.references is not None and len(policy.references) != experts:
        yield f"references has {len(policy.references)} models but experts is {experts}; give one an expert"
    if policy.references is not None and policy.architecture.kind == "shared":
        yield "references of their own need models of their own; use architecture kind independent"
    if policy.references is not None and policy.architecture.kind == "independent" and policy.architecture.lora:
        yield "adapters over one base have one reference; leave references out, or leave lora out"
    if policy.reseed is not None and policy.frozen:
        yield "reseed starts dead experts again, frozen ones too; leave one of the two out"
    if policy.sparsity is not None and policy.sparsity.top > experts:
        yield f"sparsity.top is {policy.sparsity.top} but experts is {experts}; lower it"
    if policy.frozen and max(policy.frozen) >= experts:
        yield f"frozen names expert {max(policy.frozen)}; there are 0 to {experts - 1}"
    if len(set(policy.frozen)) == experts and not isinstance(weights, GateWeights | GlobalWeights):
        yield "all experts are frozen and the weights do not learn; there is nothing to train"
    if policy.frozen and policy.architecture.kind == "shared" and policy.architecture.trunk != "frozen":
        yield f"frozen experts over a {policy.architecture.trunk} trunk would change with it; use trunk: frozen"
    if policy.start and policy.references is not None:
        yield "experts to start from are of the SFT policy, not of references of their own; leave one of the two out"
    if policy.start and policy.symmetry.kind == "partition":
        yield "a partition would train the experts of `start` on random annotators; use symmetry of kind noise or none"
    if isinstance(policy.symmetry, Anchors):
        if policy.latent != "annotator":
            yield "anchors say which expert an annotator has; use latent: annotator"
        if max(policy.symmetry.annotators.values()) >= experts:
            yield f"anchors name expert {max(policy.symmetry.annotators.values())}; there are 0 to {experts - 1}"
    if policy.growth is not None:
        yield from _growth_contradictions(policy, policy.growth)


def _growth_contradictions(policy: Policy, growth: Growth) -> Iterator[str]:
    if growth.most < policy.experts:
        yield f"growth.most is {growth.most} but experts starts at {policy.experts}; raise it"
    fixed = [
        name
        for name, given in {
            "betas": policy.betas,
            "references": policy.references,
            "frozen": policy.frozen,
            "weights.values": getattr(policy.weights, "values", None),
        }.items()
        if given
    ]
    if fixed or isinstance(policy.weights, DomainWeights):
        named = ", ".join(fixed) or "weights of kind domain"
        yield f"growth changes the number of experts, but {named} names each of them; leave one of the two out"
