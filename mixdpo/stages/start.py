"""`policies.NAME.start`: experts, and the gate, that a training goes on from (docs/registry.md)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixdpo.config import Params
from mixdpo.config.policy import Policy
from mixdpo.errors import ConfigError, ModelError
from mixdpo.files import directory_digest
from mixdpo.layout import Layout
from mixdpo.policy import MixturePolicy
from mixdpo.policy.base import Base, architecture_difference, base_of, reference_difference, tensor_difference
from mixdpo.policy.compose import copy_expert
from mixdpo.policy.experts import Experts, SharedTrunk
from mixdpo.policy.weighting import PriorWeights, Weighting
from mixdpo.registry import Registry, open_registry
from mixdpo.registry.reference import chosen_experts, split_expert

logger = logging.getLogger(__name__)

REMEDY = (
    "train on its reference: set sft.base to the `reference` of that version, below `inputs`, and sft.epochs to 0 "
    "(`python -m flows.retrain --warm-start NAME@ALIAS` does so)"
)


class _Source(NamedTuple):
    """An entry of `start`."""

    text: str
    policy: MixturePolicy
    experts: range  # those that it gives
    whole: bool  # it names all of its mixture


def start_from(
    policy: Policy, experts: Experts, weighting: Weighting, base: Base, params: Params, layout: Layout
) -> int:
    """Load what `policy.start` names into new experts, and into the weights, in place.

    The experts are taken in order; those beyond stay as they are. Weights that learn go on from those of the mixture
    where it is the only entry, named as a whole, and its gate sees the same; else they start as new ones do.

    Args:
        base: what the new experts were made from, at the start of `mixdpo train`.

    Returns:
        How many experts were given.

    Raises:
        RegistryError: no such version or expert. ModelError: no mixture, or one of another base (see `REMEDY`).
        ConfigError: `start` gives more experts than there are, or a frozen gate has nothing to stay at.
    """
    sources = [_load(text, params, layout) for text in policy.start]
    given = [(source, expert) for source in sources for expert in source.experts]
    if len(given) > experts.experts:
        raise ConfigError(
            f"start gives {len(given)} experts ({', '.join(policy.start)}) but experts is {experts.experts}; raise it, "
            f"or name single experts as in reviews@v3/expert-1"
        )
    for source in sources:
        _refuse_misfit(base, source)
        _take_trunk(experts, source, alone=len(sources) == 1 and len(given) == experts.experts)
    for place, (source, expert) in enumerate(given):
        copy_expert(source.policy.expert_models, expert, experts, place)
    if len(sources) == 1 and sources[0].whole:
        _take_weights(policy, weighting, sources[0])
    return len(given)


def start_digests(policy: Policy, params: Params, layout: Layout) -> list[str]:
    """What each entry of `start` is made of, for the key of a training: a version's or a directory's digest."""
    digests = []
    for text in policy.start:
        whole, _ = split_expert(text)
        if "@" in whole:
            digests.append(_registry(params, layout).resolve(whole).digest)
        else:
            digests.append(directory_digest(_below_inputs(whole, params, layout)))
    return digests


def _load(text: str, params: Params, layout: Layout) -> _Source:
    whole, expert = split_expert(text)
    registered = "@" in whole
    policy = MixturePolicy.from_pretrained(
        _registry(params, layout).materialise(whole) if registered else _below_inputs(whole, params, layout)
    )
    return _Source(text, policy, chosen_experts(text, expert, policy.experts), expert is None)


def _registry(params: Params, layout: Layout) -> Registry:
    return open_registry(params.registry, layout.root)


def _below_inputs(name: str, params: Params, layout: Layout) -> Path:
    directory = layout.root / params.inputs / name
    if not directory.is_dir():
        raise ModelError(
            f"start names {name}, but there is no directory {directory}; put a mixture there, or name a version of the "
            f"registry as in reviews@v3"
        )
    return directory


def _refuse_misfit(base: Base, source: _Source) -> None:
    for expert in source.experts:
        found = base_of(source.policy, expert)
        if difference := architecture_difference(base, found):
            raise ModelError(f"{source.text} cannot be started from: it has {difference}; use the architecture it has")
        if difference := reference_difference(base, found):
            raise ModelError(f"{source.text} cannot be started from: it has {difference}; {REMEDY}")


def _take_trunk(experts: Experts, source: _Source, alone: bool) -> None:
    """A shared trunk that was trained goes with its experts; others cannot live on it."""
    found = source.policy.expert_models
    if not (isinstance(experts, SharedTrunk) and isinstance(found, SharedTrunk)):
        return
    difference = tensor_difference(experts.trunk, found.trunk)
    if difference is None:
        return
    if not alone or not any(parameter.requires_grad for parameter in experts.trunk.parameters()):
        raise ModelError(
            f"{source.text} has a trunk of its own ({difference}), which all experts over it share; let `start` give "
            f"all experts from that mixture alone, with the same `trunk` as there, or use mixtures with trunk: frozen"
        )
    experts.trunk.load_state_dict(found.trunk.state_dict())


def _take_weights(policy: Policy, weighting: Weighting, source: _Source) -> None:
    if policy.weights.kind not in ("gate", "global"):
        return
    fault = next(_weight_faults(weighting, source.policy.weighting), None)
    if fault is None:
        weighting.load_state_dict(source.policy.weighting.state_dict())
        return
    if policy.weights.kind == "gate" and policy.weights.frozen:
        raise ConfigError(
            f"the gate is to stay as in {source.text}, but {fault}; give the gate what it had there, or let it learn "
            f"(frozen: false)"
        )
    logger.warning("%s: %s; the mixing weights start as new ones", source.text, fault)


def _weight_faults(weighting: Weighting, found: Weighting) -> Iterator[str]:
    if type(weighting) is not type(found):
        yield f"its weights are {_kind(found)}, not {_kind(weighting)}"
    elif (wanted := weighting.describe()) != (other := found.describe()):
        differing = sorted(key for key in wanted.keys() | other.keys() if wanted.get(key) != other.get(key))
        yield f"its gate differs in {', '.join(differing)}"
    elif {k: v.shape for k, v in weighting.state_dict().items()} != {k: v.shape for k, v in found.state_dict().items()}:
        yield "its weights are for another number of experts"


def _kind(weighting: Weighting) -> str:
    return "a prior" if isinstance(weighting, PriorWeights) else f"of kind {weighting.describe()['kind']}"
