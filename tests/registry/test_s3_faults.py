"""What networks and stores do, and what becomes of it: tried again where that helps, else refused with a remedy."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo.errors import RegistryError, StorageError, TransientError
from mixdpo.registry import Registry
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_store import S3Store

from .proxy import Fault, Proxy, corrupt, corrupt_request, drop, lose_reply, refuse, truncate
from .servers import SECRET, free_ports

ENTRY = "log/a/0000000001.json"
BODY = b"0123456789" * 100_000  # more than one chunk
BROKEN = [refuse(500, "InternalError"), refuse(503, "SlowDown"), refuse(503, "ServiceUnavailable"), drop]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def store(bucket: S3Location, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """Through the proxy, with two tries a request; its probe is behind it."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr("mixdpo.registry.s3_stream.PAUSE", 0.001)
    store = S3Store(S3Location(bucket.bucket, bucket.prefix, proxy.url))
    store.check_writable()
    proxy.heal()
    return store


@pytest.mark.parametrize("fault", BROKEN)
def test_a_write_that_meets_a_broken_store_is_made_again(store: S3Store, proxy: Proxy, fault: Fault) -> None:
    proxy.inject(fault, "PUT", ENTRY)
    assert store.put_once(ENTRY, b"mine", sha256(b"mine"))
    assert (proxy.count("PUT", ENTRY), store.read(ENTRY, 9)) == (2, b"mine")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_store_that_stays_broken_is_an_error_after_which_trying_again_helps(
    store: S3Store, proxy: Proxy, fault: Fault
) -> None:
    proxy.inject(fault, "PUT", ENTRY, times=2)
    with pytest.raises(TransientError, match=rf"^cannot put {ENTRY} in s3://mlops/.*what was put already stays$"):
        store.put_once(ENTRY, b"mine", sha256(b"mine"))
    assert store.put_once(ENTRY, b"mine", sha256(b"mine"))


def test_after_a_lost_reply_ones_own_entry_is_there_and_is_known(store: S3Store, proxy: Proxy) -> None:
    proxy.inject(lose_reply, "PUT", ENTRY)
    assert not store.put_once(ENTRY, b"mine", sha256(b"mine"))  # the second try met the first
    assert store.holds(ENTRY, b"mine", sha256(b"mine"))


def test_a_version_is_registered_once_though_replies_to_its_writes_are_lost(
    store: S3Store, proxy: Proxy, policy: Path
) -> None:
    for part in ("blobs/", "manifests/", "log/"):
        proxy.inject(lose_reply, "PUT", part)
    version = Registry(store).register("reviews", policy, {}, "staging", "first")
    assert version.created
    assert [entry.nonce for entry in Registry(store).history("reviews").entries] == [version.entry.nonce]
    Registry(store).verify("reviews")


@pytest.mark.parametrize("fault", [*BROKEN, truncate])
def test_a_reading_goes_on_where_the_connection_broke(store: S3Store, proxy: Proxy, fault: Fault) -> None:
    store.put_once("blobs/x", BODY, sha256(BODY))
    proxy.inject(fault, "GET", "blobs/x", times=3 if fault is truncate else 1)
    with store.open("blobs/x") as stream:
        assert stream.read() == BODY
    ranges = [request.headers.get("Range") for request in proxy.seen if request.method == "GET"]
    assert ranges[0] is None
    if fault is truncate:
        assert all(asked and 0 < int(re.findall(r"\d+", asked)[0]) < len(BODY) for asked in ranges[1:])


def test_a_reading_whose_connections_all_break_is_an_error_after_which_trying_again_helps(
    store: S3Store, proxy: Proxy
) -> None:
    store.put_once("blobs/x", BODY, sha256(BODY))
    stream = store.open("blobs/x")
    stream.read(10)
    proxy.inject(truncate, "GET", "blobs/x", times=99)
    store.open("blobs/x").close()
    with pytest.raises(TransientError, match=r"^cannot read blobs/x in s3://mlops/"), store.open("blobs/x") as broken:
        broken.read()


def test_an_object_that_becomes_another_while_it_is_read_is_not_mixed(store: S3Store, proxy: Proxy) -> None:
    store.put_once("blobs/x", BODY, sha256(BODY))
    proxy.inject(truncate, "GET", "blobs/x")
    with store.open("blobs/x") as stream:
        stream.read(1)
        store.client.put_object(**store.where.object("blobs/x"), Body=BODY[::-1])
        with pytest.raises(StorageError, match="PreconditionFailed"):
            stream.read()


def test_what_arrives_damaged_is_read_again_and_never_given_out(store: S3Store, proxy: Proxy) -> None:
    store.put_once(ENTRY, b"entry", sha256(b"entry"))
    proxy.inject(corrupt, "GET", ENTRY)
    proxy.inject(truncate, "GET", ENTRY)
    assert store.read(ENTRY, 100) == b"entry"
    proxy.inject(corrupt, "GET", ENTRY, times=99)
    with pytest.raises(
        RegistryError, match=rf"^cannot read {ENTRY} .*the bytes that arrived are not those that the store"
    ):
        store.read(ENTRY, 100)


def test_what_is_damaged_on_its_way_to_the_store_is_refused_by_it(store: S3Store, proxy: Proxy) -> None:
    proxy.inject(corrupt_request, "PUT", ENTRY)
    with pytest.raises(
        StorageError, match=rf"^cannot put {ENTRY} .*something between here and the store changes bytes"
    ):
        store.put_once(ENTRY, b"entry", sha256(b"entry"))
    assert proxy.count("PUT", ENTRY) == 1
    assert not store.exists(ENTRY)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (refuse(403, "AccessDenied"), r"these credentials may not do that: docs/registry\.md lists the permissions"),
        (refuse(403, "ExpiredToken"), "look at AWS_ACCESS_KEY_ID"),
        (refuse(404, "NoSuchBucket"), r"create the bucket mlops, or correct registry\.url"),
        (refuse(507, "InsufficientStorage"), "there is no space left in the store"),
        (refuse(403, "QuotaExceeded"), "there is no space left in the store"),
        (refuse(301, "PermanentRedirect"), r"another region: give it as \?region=NAME"),
        (refuse(501, "NotImplemented"), r"\(HTTP 501\); docs/registry\.md says what a store must"),
    ],
)
def test_what_trying_again_does_not_help_is_refused_at_once_with_a_remedy(
    store: S3Store, proxy: Proxy, fault: Fault, message: str
) -> None:
    proxy.inject(fault, "PUT", ENTRY, times=99)
    with pytest.raises(StorageError, match=rf"^cannot put {ENTRY} in s3://mlops/.*{message}") as error:
        store.put_once(ENTRY, b"mine", sha256(b"mine"))
    assert proxy.count("PUT", ENTRY) == 1
    assert SECRET not in str(error.value)


def test_a_bucket_that_cannot_be_written_can_be_read(
    store: S3Store, proxy: Proxy, policy: Path, tmp_path: Path, contents_of: Callable[[Path], dict[str, bytes]]
) -> None:
    Registry(store).register("reviews", policy, {}, "staging", "first")
    for method in ("PUT", "POST", "DELETE"):
        proxy.inject(refuse(403, "AccessDenied"), method, "/", times=999)
    assert contents_of(Registry(store).pull("reviews@staging", tmp_path / "target")) == contents_of(policy)
    (policy / "mixture.json").write_text("{}", encoding="utf-8")
    for write in (
        lambda: Registry(store).register("reviews", policy, {}, "staging", "second"),
        lambda: Registry(store).set_alias("reviews", "production", "v1", "first"),
    ):
        with pytest.raises(StorageError, match=r"AccessDenied.*these credentials may not do that"):
            write()
    assert len(Registry(store).history("reviews").entries) == 1


@pytest.mark.parametrize(("minutes", "said"), [(60, "60 minutes ahead of"), (-90, "90 minutes behind")])
def test_a_clock_that_is_wrong_is_named(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, minutes: int, said: str
) -> None:
    """The server itself refuses; what it says of its own clock is compared with what this machine's shows."""
    wrong = datetime.timedelta(minutes=minutes)
    right = datetime.datetime

    class Clock(right):  # type: ignore[valid-type,misc]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return right.now(tz) + wrong

    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda **_: right.now(datetime.UTC) + wrong)
    monkeypatch.setattr("mixdpo.registry.s3_errors.datetime", Clock)
    with pytest.raises(StorageError, match=rf"RequestTimeTooSkewed.* This machine's clock is {said} the store's\. Set"):
        store.put_once(ENTRY, b"mine", sha256(b"mine"))


def test_wrong_and_absent_credentials_are_told_apart(bucket: S3Location, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        with pytest.raises(StorageError) as error:
            S3Store(bucket).list("log/")
        return str(error.value)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-right-one")
    assert re.match(r"cannot list log/ in s3://mlops/\S+: SignatureDoesNotMatch.*look at AWS_ACCESS_KEY_ID", refused())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
    assert "InvalidAccessKeyId" in refused()
    assert "not-the-right-one" not in refused()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "Unable to locate credentials; set AWS_ACCESS_KEY_ID" in refused()


@pytest.mark.usefixtures("s3_client")
def test_where_nobody_listens_trying_again_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (port,) = free_ports(1)
    for endpoint in (f"http://127.0.0.1:{port}", "http://nowhere.invalid:80"):
        with pytest.raises(TransientError, match=r"look at the network and at the endpoint \(AWS_ENDPOINT_URL"):
            S3Store(S3Location("bucket", endpoint=endpoint)).list("log/")


def test_a_certificate_that_is_none_is_named(
    bucket: S3Location, seaweed_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    where = S3Location(bucket.bucket, endpoint=seaweed_endpoint.replace("http:", "https:"))
    with pytest.raises(StorageError, match="trust the store's certificate with AWS_CA_BUNDLE"):
        S3Store(where).list("log/")
