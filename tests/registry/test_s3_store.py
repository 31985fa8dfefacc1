"""What is S3's alone: uploads in parts that go on after an interruption, digests that the store took, long listings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixdpo.errors import StorageError, TransientError
from mixdpo.registry.s3_client import connect
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_store import S3Store
from mixdpo.registry.s3_upload import base64_sha256

from .proxy import Exchange, Fault, Proxy, drop, lose_reply, refuse

PART = 5 << 20  # the least that S3 takes

Open = Callable[[], S3Store]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def through(bucket: S3Location, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens the bucket through the proxy, with a client that does not try again by itself."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return lambda: S3Store(S3Location(bucket.bucket, bucket.prefix, proxy.url), part=PART)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(3 * PART + 7))
    return path


@pytest.fixture
def digest(weights: Path) -> str:
    return sha256(weights.read_bytes())


def test_an_interrupted_upload_goes_on_where_it_was(through: Open, proxy: Proxy, weights: Path, digest: str) -> None:
    proxy.inject(drop, "PUT", "partNumber=4", times=99)
    with pytest.raises(
        TransientError, match=r"^cannot put blobs/w in s3://mlops/.*run again: what was put already stays"
    ):
        through().put_once("blobs/w", weights, digest)
    (begun,) = through().unfinished("blobs/")
    assert (begun.key, begun.size) == ("blobs/w", 3 * PART)
    proxy.heal()
    told: list[int] = []
    assert through().put_once("blobs/w", weights, digest, told.append)
    assert sum(told) == weights.stat().st_size
    assert (proxy.count("PUT", "partNumber="), proxy.count("PUT", "partNumber=4")) == (1, 1)
    assert through().holds("blobs/w", weights, digest)


def test_parts_of_other_bytes_are_sent_again(through: Open, bucket: S3Location, weights: Path, digest: str) -> None:
    client, _ = connect(bucket)
    zeros = {"ChecksumSHA256": base64_sha256(bytes(PART))}
    upload = client.create_multipart_upload(**bucket.object("blobs/w"), ChecksumAlgorithm="SHA256")["UploadId"]
    client.upload_part(**bucket.object("blobs/w"), UploadId=upload, PartNumber=1, Body=bytes(PART), **zeros)
    assert through().put_once("blobs/w", weights, digest)
    with through().open("blobs/w") as stream:
        assert sha256(stream.read()) == digest


def quicker(answer: Fault) -> Fault:
    """Another writer of the same bytes completes the upload first, and one is told so by `answer`."""

    def complete_and_refuse(exchange: Exchange) -> None:
        lose_reply(exchange)
        answer(exchange)

    return complete_and_refuse


@pytest.mark.parametrize(
    "fault", [lose_reply, quicker(refuse(412, "PreconditionFailed")), quicker(refuse(404, "NoSuchUpload"))]
)
def test_a_completion_whose_reply_was_lost_or_that_another_made_leaves_the_whole_object(
    through: Open, proxy: Proxy, weights: Path, digest: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    proxy.inject(fault, "POST", "uploadId=")
    store = through()
    assert not store.put_once("blobs/w", weights, digest)
    assert store.holds("blobs/w", weights, digest)
    assert store.unfinished("") == []


def test_an_upload_that_vanishes_is_begun_again(through: Open, proxy: Proxy, weights: Path, digest: str) -> None:
    proxy.inject(refuse(404, "NoSuchUpload"), "PUT", "partNumber=2")
    store = through()
    assert store.put_once("blobs/w", weights, digest)
    assert store.holds("blobs/w", weights, digest)
    proxy.inject(refuse(409, "ConditionalRequestConflict"), "POST", "uploadId=", times=99)
    with pytest.raises(
        TransientError, match=r"^cannot put blobs/other in .*: other writers of it came between; run again"
    ):
        store.put_once("blobs/other", weights, digest)


def test_where_the_store_took_a_digest_nothing_is_read_again(
    through: Open, proxy: Proxy, weights: Path, digest: str
) -> None:
    store = through()
    store.put_once("blobs/large", weights, digest)
    store.put_once("blobs/small", b"small", sha256(b"small"))
    assert store.holds("blobs/large", weights, digest)
    assert store.holds("blobs/small", b"small", sha256(b"small"))
    assert proxy.count("GET", "blobs/") == proxy.count("GET", "blobs/large?uploadId")
    weights.write_bytes(bytes(3 * PART + 7))
    assert not store.holds("blobs/large", weights, sha256(weights.read_bytes()))
    believing_nothing = S3Store(
        S3Location(store.where.bucket, store.where.prefix, proxy.url, checksums="when_required")
    )
    assert believing_nothing.holds("blobs/small", b"small", sha256(b"small"))
    assert proxy.count("GET", "blobs/small") == 1


def test_a_conflict_with_another_writer_of_the_moment_is_tried_again(through: Open, proxy: Proxy) -> None:
    store = through()
    store.check_writable()
    proxy.inject(refuse(409, "ConditionalRequestConflict"), "PUT", "log/", times=2)
    assert store.put_once("log/a/1.json", b"x", sha256(b"x"))
    assert proxy.count("PUT", "log/a/1.json") == 3


def test_a_listing_of_several_pages_is_whole(bucket: S3Location) -> None:
    store = S3Store(bucket)
    pages: list[int] = []

    def small_pages(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 2
        pages.append(1)

    store.client.meta.events.register("provide-client-params.s3.ListObjectsV2", small_pages)
    for number in range(5):
        store.put_once(f"log/a/{number}", b"", sha256(b""))
    assert [stored.key for stored in store.list("log/")] == [f"log/a/{number}" for number in range(5)]
    assert len(pages) == 3


def test_time_is_the_stores(bucket: S3Location) -> None:
    store = S3Store(bucket)
    store.put_once("x", b"", sha256(b""))
    (stored,) = store.list("x")
    (probe,) = store.list("probe/")
    assert probe.modified <= stored.modified <= probe.modified + 60


@pytest.mark.usefixtures("s3_client")
def test_old_stores_get_no_digests_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    where = S3Location("bucket", endpoint="http://127.0.0.1:1", checksums="when_required")
    client, vouches = connect(where)
    assert (client.meta.config.request_checksum_calculation, vouches) == ("when_required", False)
    assert connect(S3Location("bucket"))[1]
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    client, vouches = connect(S3Location("bucket"))
    assert (client.meta.config.request_checksum_calculation, vouches) == ("when_required", False)


@pytest.mark.usefixtures("s3_client")
def test_the_endpoint_is_of_the_url_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert connect(S3Location("bucket"))[0].meta.endpoint_url == "http://127.0.0.1:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2")
    assert connect(S3Location("bucket"))[0].meta.endpoint_url == "http://127.0.0.1:2"
    client, _ = connect(S3Location("bucket", endpoint="http://127.0.0.1:3", region="eu-north-1"))
    assert (client.meta.endpoint_url, client.meta.region_name) == ("http://127.0.0.1:3", "eu-north-1")
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(StorageError, match=r"cannot use the AWS settings .*profile \(absent\).*AWS_PROFILE"):
        connect(S3Location("bucket"))
