"""`--warm-start reviews@production`: params.yaml is rewritten so that the next training goes on from a version.

Experts are changes of one reference, so the version's reference becomes the SFT policy, untrained. It is copied below
`inputs`, where DVC hashes what the stages read; its directory is named by its content, so that version after version
with one reference changes nothing but where training starts.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path, PurePosixPath

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from yaml import safe_load

from mixdpo.config import load_params, parse_params
from mixdpo.errors import ConfigError, RegistryError
from mixdpo.files import digest, directory_digest, read_json, replacing, write_text
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
    return _rewrite(path, changes)


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


def _rewrite(path: Path, changes: dict[tuple[str, ...], object]) -> list[str]:
    """Set keys in a YAML file; comments and order stay. The file changes as a whole, and only to what is valid."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda each, _: each.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    values = yaml.load(path.read_text(encoding="utf-8"))
    told = []
    for keys, value in changes.items():
        section = values
        for key in keys[:-1]:
            section = section[key]
        if section.get(keys[-1]) != value:
            section[keys[-1]] = _inline(value)
            told.append(f"{'.'.join(keys)}: {_said(value)}")
    if told:
        text = io.StringIO()
        yaml.dump(values, text)
        parse_params(safe_load(text.getvalue()), f"{path}, with " + ", ".join(told))
        write_text(path, text.getvalue())
    return told


def _inline(value: object) -> object:
    """Mappings and lists in braces and brackets, as the profiles write short ones."""
    if isinstance(value, dict):
        mapping = CommentedMap(value)
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        sequence = CommentedSeq(value)
        sequence.fa.set_flow_style()
        return sequence
    return value


def _said(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_said(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_said, value)) + "]"
    return "null" if value is None else str(value)
