"""The manifest: what a version consists of and what it came from. Its digest is the version's identity.

It holds no time and no place, so that the same files with the same lineage are the same version wherever and whenever
they are registered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mixdpo.errors import RegistryError
from mixdpo.files import canonical_json, digest, file_digest
from mixdpo.registry.safety import check_content, check_paths

SCHEMA = 1
LIMIT = 16 << 20  # bytes; a manifest of more is refused unread
MAX_FILES = 10_000
MAX_FILE_BYTES = 1 << 40

RUN = "run/"  # below it lies what tells of the run: parameters as they were written, report, packages
METRICS = "run/metrics/"
STANDING = "run/standing"  # and a suffix: what the policy showed on held-out prompts
PACKAGES = "run/packages.cdx.json"
RESULTS = (METRICS, STANDING)  # the same for the same inputs, to the byte
# they tell how a version was made and may differ between two that are the same: another commit of the same code, a
# batch of which no review was kept
CIRCUMSTANCES = ("git", "dvc_lock", "python", "packages", "params_digest", "arrivals")
ELSEWHERE = (
    "compute",
    "engine",
    "registry",
    "promotion",
    "arrivals",
    "drift",
)  # sections of params that say where it runs and how it is published

NAME = r"[a-z0-9][a-z0-9-]*"
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=100)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Record(BaseModel):
    """JSON kept in a registry: frozen, strict, nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Content(Record):
    sha256: Digest
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]  # bytes


class Manifest(Record):
    schema_version: Annotated[Literal[1], Field(alias="schema")]
    name: Name
    kind: Literal["mixture"]
    files: Annotated[dict[str, Content], Field(min_length=1, max_length=MAX_FILES)]  # by POSIX path in the version
    lineage: dict[str, Any]  # mixdpo.registry.lineage

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(content.size for content in self.files.values())

    @property
    def digests(self) -> set[str]:
        """sha256 of each file, and of the manifest itself."""
        return {content.sha256 for content in self.files.values()} | {self.digest}

    def to_bytes(self) -> bytes:
        return canonical_json(self.model_dump(by_alias=True))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def content(self) -> str:
        """Digest of what this version is: the policy's files, its results, and the lineage less its circumstances.

        Two manifests of one name with the same content are the same version, made twice.
        """
        lineage = {key: value for key, value in self.lineage.items() if key not in CIRCUMSTANCES}
        if isinstance(params := lineage.get("params"), dict):
            lineage["params"] = {key: value for key, value in params.items() if key not in ELSEWHERE}
        files = {
            path: content.sha256
            for path, content in self.files.items()
            if path.startswith(RESULTS) or not path.startswith(RUN)
        }
        return digest({"kind": self.kind, "files": files, "lineage": lineage})


def describe_files(name: str, files: Mapping[str, Path], lineage: Mapping[str, Any]) -> Manifest:
    """The manifest of `files` (path in the version → file on disk), each checked for safety and hashed.

    Raises:
        RegistryError: an unsafe path or file, a bad name, or lineage that JSON cannot hold.
    """
    check_paths(files)
    contents = {}
    for path, file in sorted(files.items()):
        check_content(path, file)
        contents[path] = Content(sha256=file_digest(file), size=file.stat().st_size)
    try:
        manifest = Manifest.model_validate(
            {"schema": SCHEMA, "name": name, "kind": "mixture", "files": contents, "lineage": dict(lineage)}
        )
        manifest.to_bytes()
    except ValidationError as error:
        raise RegistryError(f"{name} cannot be registered: {faults(error)}") from None
    except (TypeError, ValueError) as error:
        raise RegistryError(f"the lineage of {name} is not JSON ({error}); metrics must be finite numbers") from None
    return manifest


def parse_manifest(body: bytes, digest: str, origin: str) -> Manifest:
    """The manifest that `body` is, which must be the bytes that `digest` names. `origin` is for messages.

    Raises:
        RegistryError: other bytes than registered, too large, not a manifest, or unsafe paths in it.
    """
    found = hashlib.sha256(body).hexdigest()
    if len(body) > LIMIT:
        raise RegistryError(f"{origin} is above {LIMIT} bytes, too large for a manifest; this version cannot be read")
    if found != digest:
        raise RegistryError(
            f"{origin} was changed: expected sha256 {digest}, got {found}; restore it from a copy of the registry, "
            "or delete that file and register the same directory again"
        )
    try:
        manifest = Manifest.model_validate_json(body)
        canonical = manifest.to_bytes() == body
    except ValidationError as error:
        raise RegistryError(f"{origin} is not a manifest that this mixdpo reads: {faults(error)}; upgrade") from None
    except (ValueError, RecursionError) as error:  # numbers that JSON has none of, nesting without end
        raise RegistryError(f"{origin} is not a manifest: its lineage is not JSON ({error})") from None
    if not canonical:
        raise RegistryError(f"{origin} is not in canonical form, so no mixdpo wrote it; this version cannot be read")
    check_paths(manifest.files)
    return manifest


def faults(error: ValidationError) -> str:
    """What is wrong with a record, on one line."""
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors())
