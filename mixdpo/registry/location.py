"""Where the registry is, and where fetched versions are kept."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from mixdpo.errors import RegistryError
from mixdpo.registry.file_store import FileStore
from mixdpo.registry.store import Store

VARIABLE = "MIXDPO_REGISTRY"
CHECKSUMS = ("when_supported", "when_required")  # botocore's words
S3_FORM = "s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME&checksums=when_required, all but s3://BUCKET optional"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*)?")


@dataclass(frozen=True)
class S3Location:
    """A bucket, or what begins with `prefix` in it. What is None is left to the AWS settings of the environment."""

    bucket: str
    prefix: str = ""  # without / at its ends
    endpoint: str | None = None  # URL of a store that is not AWS
    region: str | None = None
    checksums: str | None = None  # one of CHECKSUMS; when_required for stores older than 2025

    def object(self, key: str) -> dict[str, str]:
        """What a request calls the object at `key`."""
        return {"Bucket": self.bucket, "Key": self.full_key(key)}

    def full_key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def own_key(self, full_key: str) -> str:
        return full_key.removeprefix(f"{self.prefix}/") if self.prefix else full_key

    def __str__(self) -> str:
        return f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


Location = Path | S3Location


def registry_location(url: str | None = None, base: Path | None = None) -> Location:
    """Where the registry is: `url` (registry.url of params.yaml), else $MIXDPO_REGISTRY, else the user's own directory.

    The user's own is $XDG_DATA_HOME/mixdpo/registry, by default ~/.local/share/mixdpo/registry. A relative path is
    taken from `base` (default: the current directory); `s3://` and `file://` URLs and `~` are understood.

    Raises:
        RegistryError: a URL of another kind, or one that is not complete.
    """
    given, origin = (url, "registry.url") if url else (os.environ.get(VARIABLE), f"${VARIABLE}")
    if not given:
        return _user_directory("XDG_DATA_HOME", ".local/share") / "registry"
    return parse_location(given, origin, base)


def parse_location(given: str, origin: str, base: Path | None = None) -> Location:
    """A directory or a bucket that `origin` (registry.url, say) names, as `registry_location` reads it."""
    if given.startswith("s3://"):
        return _s3_location(given, origin)
    path = given.removeprefix("file://")
    if match := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):  # one letter and a colon is a drive
        raise RegistryError(
            f"{origin} is a place of the kind {match[0]}, but only directories and buckets (s3:) are "
            f"known here; give a path, which may be on a shared disk, or {S3_FORM}"
        )
    return (base or Path()).joinpath(Path(path).expanduser()).absolute()


def open_store(location: Location) -> Store:
    """The store at a location; what it needs is imported here.

    Raises:
        RegistryError: a file in place of the directory. StorageError: settings of AWS that cannot be used.
    """
    if isinstance(location, Path):
        return FileStore(location)
    from mixdpo.registry.s3_store import S3Store

    return S3Store(location)


def check_bucket(location: S3Location) -> str:
    """What `mixdpo doctor` says of a bucket that answers, takes these credentials, and keeps what was put first.

    Puts one small object (`s3_probe.KEY`) where none was put before. Raises StorageError or TransientError otherwise.
    """
    from mixdpo.registry.s3_store import S3Store

    store = S3Store(location)
    names = {stored.key.split("/")[1] for stored in store.list("log/")}
    store.check_writable()
    return f"{location} can be read and written, and keeps what was put first; it holds {len(names)} names"


def cache_directory() -> Path:
    """Where `materialise` keeps versions: $XDG_CACHE_HOME/mixdpo, by default ~/.cache/mixdpo. May be deleted."""
    return _user_directory("XDG_CACHE_HOME", ".cache")


def _s3_location(url: str, origin: str) -> S3Location:
    parts = urlsplit(url)
    if "@" in parts.netloc:  # not shown: it may hold a secret
        raise RegistryError(
            f"{origin} holds credentials; they come from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role), "
            f"where nobody registers them. Expected {S3_FORM}"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = parts.path.strip("/")
    unknown = sorted(options.keys() - {"endpoint", "region", "checksums"})
    if not _BUCKET.fullmatch(parts.netloc):
        fault = f"{parts.netloc!r} is no name of a bucket (3 to 63 small letters, digits, . and -)"
    elif not _PREFIX.fullmatch(prefix):
        fault = f"{prefix!r} is no prefix (letters, digits, _ . = - and / between parts)"
    elif unknown or parts.fragment:
        fault = f"{', '.join(unknown) or '#' + parts.fragment} is no option"
    elif not re.match(r"https?://[^/@]+/?$", options.get("endpoint", "https://ok")):
        fault = "the endpoint is no http:// or https:// URL of a host and port alone"
    elif options.get("checksums", CHECKSUMS[0]) not in CHECKSUMS:
        fault = f"checksums is {options['checksums']!r}, expected one of {', '.join(CHECKSUMS)}"
    else:
        region = options.get("region") or None
        return S3Location(parts.netloc, prefix, options.get("endpoint"), region, options.get("checksums"))
    raise RegistryError(f"{origin} is not a place in S3: {fault}; expected {S3_FORM}")


def _user_directory(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    # the XDG specification has relative paths ignored
    return (Path(given) if os.path.isabs(given) else Path.home() / default) / "mixdpo"
