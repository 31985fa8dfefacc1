"""A place in S3, and the URL that names it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from mixdpo.errors import RegistryError

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


def parse_s3_location(url: str, origin: str) -> S3Location:
    """The bucket that `origin` (registry.url, say) names. Raises RegistryError for a URL that is not complete."""
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
