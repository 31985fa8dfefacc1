"""`--warm-start reviews@production`: params.yaml is rewritten so that the next training goes on from a version.

Experts are changes of one reference, so the version's reference becomes the SFT policy, untrained. It is copied below
`inputs`, where DVC hashes what the stages read; its directory is named by its content, so that version after version
with one reference changes nothing but where training starts.
"""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from mixdpo.config import load_params
from mixdpo.config.rewriting import rewrite
from mixdpo.errors import ConfigError, RegistryError
from mixdpo.files import digest, directory_digest, read_json, replacing
from mixdpo.registry import Version, open_registry

BASES = "bases"  # below `inputs`
REFERENCE = "reference"  # below a version


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
    base = _place_reference(version, directory, root / params.inputs)
    changes = {
        ("sft", "base"): {"kind": "pretrained", "model": base, "revision": None},
        ("sft", "epochs"): 0,
        ("policies", name, "start"): [version.reference],
    }
    if experts == policy.experts:
        # they have parted already: noise would only move them from where they are
        changes["policies", name, "symmetry"] = {"kind": "none"}
    return rewrite(path, changes)


def _place_reference(version: Version, directory: Path, inputs: Path) -> str:
    """Copy the version's reference below `inputs`; → its path from there."""
    files = {
        PurePosixPath(path).relative_to(REFERENCE).as_posix(): content.sha256
        for path, content in version.manifest.files.items()
        if PurePosixPath(path).parts[0] == REFERENCE
    }
    if not files:
        raise RegistryError(f"{version.reference} holds no {REFERENCE}/ to train on; name a version of a mixture")
    expected = digest(files)
    name = f"{BASES}/{version.name}-{expected[:12]}"
    if not (inputs / name).is_dir():
        with replacing(inputs / name) as target:
            # contents alone: files in the cache are read-only
            shutil.copytree(directory / REFERENCE, target, copy_function=shutil.copyfile)
    if directory_digest(inputs / name) != expected:
        raise RegistryError(
            f"{inputs / name} is not the reference of {version.reference}: expected digest {expected}; remove that "
            f"directory, and {directory} in the cache, and run again"
        )
    return name
