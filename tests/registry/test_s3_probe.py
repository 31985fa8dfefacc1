"""A store that lets a second writer take the place of the first is refused before anything is written."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mixdpo.errors import StorageError
from mixdpo.registry import Registry
from mixdpo.registry.location import check_bucket
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_probe import KEY
from mixdpo.registry.s3_store import S3Store

from .proxy import Proxy, lose_reply, refuse
from .servers import BUCKET


@pytest.fixture
def careless(rclone_endpoint: str, s3_client: None) -> S3Location:  # noqa: ARG001 (sets the environment)
    return S3Location(BUCKET, f"test-{uuid.uuid4().hex[:12]}", rclone_endpoint)


def test_a_store_that_ignores_conditions_is_refused_and_only_the_probes_key_is_left(
    careless: S3Location, policy: Path
) -> None:
    registry = Registry(careless)
    for _ in range(2):  # what was refused is not remembered as good
        with pytest.raises(StorageError) as error:
            registry.register("reviews", policy, {}, "staging", "first")
        assert str(error.value).startswith(
            f"{careless} at {careless.endpoint} has no conditional writes: it took a second"
        )
        assert "Nothing was registered. Use a store that refuses it" in str(error.value)
    with pytest.raises(StorageError, match="has no conditional writes"):
        check_bucket(careless)
    assert [stored.key for stored in S3Store(careless).list("")] == [KEY]
    assert registry.names() == []


def test_a_store_that_does_not_know_conditions_is_refused(bucket: S3Location, proxy: Proxy) -> None:
    proxy.inject(refuse(501, "NotImplemented"), "PUT", KEY)
    with pytest.raises(StorageError, match=rf"^cannot put {KEY} in s3://.*NotImplemented.*what a store must"):
        S3Store(S3Location(bucket.bucket, bucket.prefix, proxy.url)).put_once("x", b"", "")


def test_a_good_store_is_asked_once_a_process_and_place(bucket: S3Location, proxy: Proxy) -> None:
    where = S3Location(bucket.bucket, bucket.prefix, proxy.url)
    for _ in range(2):
        S3Store(where).check_writable()
    assert proxy.count("PUT", KEY) == 2
    other = S3Location(bucket.bucket, f"{bucket.prefix}/deeper", proxy.url)
    proxy.inject(lose_reply, "PUT", KEY)  # the second try meets the first: that is an answer too
    S3Store(other).check_writable()
    assert proxy.count("PUT", f"deeper/{KEY}") == 2


def test_reading_asks_nothing_to_be_written(bucket: S3Location, proxy: Proxy) -> None:
    assert Registry(S3Location(bucket.bucket, bucket.prefix, proxy.url)).names() == []
    assert {request.method for request in proxy.seen} == {"GET"}


def test_doctor_is_told_what_a_bucket_holds(bucket: S3Location, policy: Path) -> None:
    assert check_bucket(bucket) == f"{bucket} can be read and written, and keeps what was put first; it holds 0 names"
    Registry(bucket).register("reviews", policy, {}, "staging", "first")
    assert check_bucket(bucket).endswith("it holds 1 names")
