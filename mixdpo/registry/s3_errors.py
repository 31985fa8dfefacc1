"""What S3 stores and botocore raise, turned into errors that say what to do, and whether trying again helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from botocore.exceptions import (  # ConnectionError is botocore's, not Python's
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    SSLError,
    SSOError,
)

from mixdpo.errors import MixDPOError, RegistryError, StorageError, TransientError
from mixdpo.registry.s3_location import S3Location

BROKEN = (ConnectionError, HTTPClientError, ResponseStreamingError, IncompleteReadError)  # what a connection can die of
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound, SSOError)
_BUSY = {408, 429, 500, 502, 503, 504}
_BUSY_CODES = {
    *("RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"),
    *("OperationAborted", "ConditionalRequestConflict"),
}
_STRANGERS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_DAMAGED = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "InsufficientCapacity"}


@contextmanager
def s3_errors(where: S3Location, doing: str) -> Iterator[None]:
    """Raise what is met while `doing` (as in "read blobs/…") as one of mixdpo's errors.

    Raises:
        FileNotFoundError: the store has no such key.
        TransientError: it did not answer, is busy or broken, after the retries that the client makes.
        StorageError: anything else but damaged bytes, which are a RegistryError.
    """
    try:
        yield
    except ClientError as error:
        if status(error) == 404 and code(error) in ("404", "NoSuchKey"):
            raise FileNotFoundError(f"{where}: {doing}") from None
        raise _answered(error, where, doing) from error
    except BotoCoreError as error:
        raise _unanswered(error, where, doing) from error


def status(error: ClientError) -> int:
    """The HTTP status of an answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code(error: ClientError) -> str:
    """S3's word for an error; the status where there was no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code"))


def _answered(error: ClientError, where: S3Location, doing: str) -> MixDPOError:
    word, number = code(error), status(error)
    said = f"cannot {doing} in {where}: {word}, {error.response.get('Error', {}).get('Message') or 'no more was said'}"
    if word == "RequestTimeTooSkewed":
        return StorageError(f"{said}. {_skew(error)} Set the clock (chrony, systemd-timesyncd), then run again")
    if number in _BUSY or word in _BUSY_CODES:
        return TransientError(f"{said}; the store is busy or broken: run again later, what was put already stays")
    if word in _FULL or number == 507:
        return StorageError(
            f"{said}; there is no space left in the store: free some or raise the quota, then run again"
        )
    if word in _DAMAGED:
        return StorageError(
            f"{said}. What arrived is not what was sent, so something between here and the store changes bytes; "
            "use https, or look at the proxy and the memory of this machine"
        )
    if word == "NoSuchBucket":
        return StorageError(f"{said}; create the bucket {where.bucket}, or correct registry.url")
    if word in _STRANGERS:
        return StorageError(
            f"{said}; the credentials are not those of the store: look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "AWS_SESSION_TOKEN, AWS_PROFILE and AWS_ENDPOINT_URL"
        )
    if number in (401, 403) or word == "AccessDenied":
        return StorageError(
            f"{said}; these credentials may not do that: docs/registry.md lists the permissions (without s3:ListBucket "
            "even a missing object is answered so)"
        )
    if number in (301, 307) or word in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return StorageError(f"{said}; the bucket is in another region: give it as ?region=NAME in registry.url")
    return StorageError(f"{said} (HTTP {number}); docs/registry.md says what a store must be able to do")


def _unanswered(error: BotoCoreError, where: S3Location, doing: str) -> MixDPOError:
    said = f"cannot {doing} in {where}: {error}"
    if isinstance(error, _NO_CREDENTIALS):
        return StorageError(
            f"{said}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role"
        )
    if isinstance(error, SSLError):
        return StorageError(f"{said}; trust the store's certificate with AWS_CA_BUNDLE=FILE, or correct the endpoint")
    if isinstance(error, BROKEN):
        return TransientError(
            f"{said}; look at the network and at the endpoint (AWS_ENDPOINT_URL, ?endpoint= in registry.url), then run "
            "again: what was put already stays"
        )
    if isinstance(error, FlexibleChecksumError):
        return RegistryError(f"{said}; the bytes that arrived are not those that the store was given: read them again")
    return StorageError(f"{said}; look at the AWS settings of this machine (~/.aws/config, AWS_*) and registry.url")


def _skew(error: ClientError) -> str:
    """How far this machine's clock is from the store's, where its answer tells."""
    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not date:
        return "The clocks of this machine and of the store differ by more than 15 minutes."
    ahead = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds() / 60
    return f"This machine's clock is {abs(ahead):.0f} minutes {'ahead of' if ahead > 0 else 'behind'} the store's."
