"""The packages of the environment that registers, as CycloneDX 1.6, which scanners for vulnerabilities read.

No time and no serial number: the same environment gives the same bytes.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path
from typing import TYPE_CHECKING

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mixdpo.files import canonical_json

if TYPE_CHECKING:
    from cyclonedx.model.license import License

LONGEST_LICENSE = 100  # letters; what is longer is the text of a licence and not its name
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:(?P<hash>[0-9a-f]{64})")


def bill_of_materials(lock: Path) -> bytes:
    """CycloneDX JSON of all installed packages.

    Args:
        lock: requirements.lock, whose hashes of a package's files go with it where versions agree; may be absent.
    """
    return _bill(lock.read_text(encoding="utf-8") if lock.is_file() else "")


@lru_cache(maxsize=1)  # nothing is installed while a process runs that registers
def _bill(lock: str) -> bytes:
    hashes = locked_hashes(lock)
    bom, factory = Bom(), LicenseFactory()
    # each access to `metadata` reads and parses a file
    installed: dict[str, PackageMetadata] = {}
    for metadata in (each.metadata for each in distributions()):
        if "Name" in metadata and "Version" in metadata:
            installed.setdefault(canonicalize_name(metadata["Name"]), metadata)  # the first is the one imported
    components = {
        name: _component(name, each, factory, hashes.get((name, each["Version"]), ()))
        for name, each in installed.items()
    }
    for name, component in components.items():
        if name == "mixdpo":
            bom.metadata.component = component  # what all the others are for
        else:
            bom.components.add(component)
        bom.register_dependency(component, [components[it] for it in _needs(installed[name]) if it in components])
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    del written["serialNumber"], written["metadata"]["timestamp"]
    return canonical_json(written)


def locked_hashes(lock: str) -> dict[tuple[str, str], list[str]]:
    """(package, version) → sha256 of each of its files that the lock allows, one of which was installed."""
    found: dict[tuple[str, str], list[str]] = {}
    last: list[str] = []
    for line in lock.splitlines():
        if match := _PINNED.match(line):
            last = found.setdefault((canonicalize_name(match["name"]), match["version"]), [])
        elif match := _HASH.search(line):
            last.append(match["hash"])
    return found


def _component(
    name: str, metadata: PackageMetadata, factory: LicenseFactory, hashes: list[str] | tuple[()]
) -> Component:
    allowed = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri("requirements.lock"),
        comment="files that the lock allows, of which one was installed",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in hashes],
    )
    version = metadata["Version"]
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=f"{name}=={version}",
        name=name,
        version=version,
        purl=PackageURL("pypi", name=name, version=version),
        licenses=_licenses(metadata, factory),
        external_references=[allowed] if hashes else [],
    )


def _licenses(metadata: PackageMetadata, factory: LicenseFactory) -> list[License]:
    """As the package says: an SPDX expression, else a name, else its classifiers."""
    stated = next((metadata[key] for key in ("License-Expression", "License") if key in metadata), None)
    if stated and len(stated) <= LONGEST_LICENSE and "\n" not in stated:
        return [factory.make_from_string(stated)]
    classifiers = metadata.get_all("Classifier") or []
    names = [it.rpartition(" :: ")[2] for it in classifiers if it.startswith("License :: ")]
    return [factory.make_from_string(it) for it in sorted({*names} - {"OSI Approved"})]


def _needs(metadata: PackageMetadata) -> list[str]:
    """What a package depends on here, without its extras."""
    found = set()
    for line in metadata.get_all("Requires-Dist") or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.add(canonicalize_name(requirement.name))
    return sorted(found)
