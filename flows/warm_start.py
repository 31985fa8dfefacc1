"""`--warm-start reviews@production`: params.yaml is rewritten so that the next training goes on from a version.

Experts are changes of one reference, so the version's reference becomes the SFT policy, untrained. It is copied below
`inputs`, where DVC hashes what the stages read; its directory is named by its content, so that version after version
with one reference changes nothing but where training starts.
"""

from __future__ import annotations

from pathlib import Path

from mixdpo.config import load_params
from mixdpo.config.rewriting import rewrite
from mixdpo.errors import ConfigError
from mixdpo.files import read_json
from mixdpo.registry import open_registry
from mixdpo.registry.base import place_base


def warm_start(root: Path, reference: str) -> list[str]:
    """Rewrite params.yaml to start `registry.policy` from the version that `reference` means now.

    Returns:
        What changed, a line each; none where params.yaml said so already.

    Raises:
        RegistryError: no such version, or one without a reference of its own.
        ConfigError: params.yaml has fewer experts than the version, or is not valid with the change, and then stays.
    """
    path = root / "params.yaml"
    params = load_params(path)
    registry = open_registry(params.registry, root)
    version = registry.resolve(reference)
    directory = registry.materialise(version.reference)
    experts = read_json(directory / "mixture.json").get("experts")
    name = params.registry.policy
    policy = params.policies[name]
    if experts is None or experts > policy.experts:
        raise ConfigError(
            f"{version.reference} has {experts} experts but policies.{name}.experts is {policy.experts}; raise it to "
            f"{experts} or more, or start from single experts as in {version.reference}/expert-0"
        )
    base = place_base(version, directory, root / params.inputs)
    changes = {
        ("sft", "base"): {"kind": "pretrained", "model": base, "revision": None},
        ("sft", "epochs"): 0,
        ("policies", name, "start"): [version.reference],
    }
    if experts == policy.experts:
        # they have parted already: noise would only move them from where they are
        changes["policies", name, "symmetry"] = {"kind": "none"}
    return rewrite(path, changes)
