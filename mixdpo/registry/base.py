"""A version's reference below `inputs`, where DVC hashes it and SFT takes it as its base."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from mixdpo.errors import RegistryError
from mixdpo.files import digest, directory_digest, replacing
from mixdpo.registry.registry import Version

BASES = "bases"  # below `inputs`
REFERENCE = "reference"  # below a version


def place_base(version: Version, directory: Path, inputs: Path) -> str:
    """Copy the version's reference below `inputs`; → its path from there.

    Args:
        directory: the version's files (`Registry.materialise`).

    Raises:
        RegistryError: it has no reference of its own, or what lies there already is another one.
    """
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
