"""Reading an object to its end over connections that may break: each new one goes on where the last one stopped."""

from __future__ import annotations

import io
import random
import time
from contextlib import closing
from typing import Any

from botocore.exceptions import FlexibleChecksumError, IncompleteReadError

from mixdpo.registry.s3_errors import BROKEN, s3_errors
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.store import CHUNK

TRIES = 5  # to get one more byte
PAUSE = 0.5  # seconds before the second of them, twice as long before each further one


def open_object(client: Any, where: S3Location, key: str) -> io.BufferedReader:
    """The bytes of an object. Raises FileNotFoundError where there is none; reading raises as `s3_errors` does."""
    return io.BufferedReader(_Resuming(client, where, key), CHUNK)


def read_object(client: Any, where: S3Location, key: str, limit: int, validate: bool) -> bytes:
    """The first `limit` bytes of a small object; the whole one is compared with the store's own digest of it.

    Args:
        validate: ask the store for its digest, which some old ones answer wrongly.
    """
    mode = {"ChecksumMode": "ENABLED"} if validate else {}
    with s3_errors(where, f"read {key}"):
        for failures in range(1, TRIES):
            try:
                return _read_once(client, where, key, limit, mode)
            except (*BROKEN, FlexibleChecksumError):
                _pause(failures)
        return _read_once(client, where, key, limit, mode)


def _read_once(client: Any, where: S3Location, key: str, limit: int, mode: dict[str, str]) -> bytes:
    answer = client.get_object(**where.object(key), **mode)
    with closing(answer["Body"]) as body:
        # read without a number is what compares; what is too long is cut, and nobody takes it for whole
        whole: bytes = body.read() if answer["ContentLength"] <= limit else body.read(limit)
    return whole


class _Resuming(io.RawIOBase):
    def __init__(self, client: Any, where: S3Location, key: str) -> None:
        self._client, self._where, self._key = client, where, key
        self._at = 0  # bytes delivered
        with s3_errors(where, f"read {key}"):
            answer = client.get_object(**where.object(key))
        self._body: Any = answer["Body"]  # None where its connection broke
        self._etag, self._size = answer["ETag"], answer["ContentLength"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with s3_errors(self._where, f"read {self._key}"):
            chunk = self._read(len(buffer))
        self._at += len(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
        super().close()

    def _read(self, size: int) -> bytes:
        if self._at == self._size:
            return b""
        for failures in range(1, TRIES):
            try:
                return self._some(size)
            except BROKEN:
                if self._body is not None:
                    self._body.close()
                self._body = None
                _pause(failures)
        return self._some(size)

    def _some(self, size: int) -> bytes:
        """At least one byte, over a new connection where the old one broke."""
        if self._body is None:
            # another object under this name would have another ETag, and that is an error
            rest = {"Range": f"bytes={self._at}-", "IfMatch": self._etag}
            self._body = self._client.get_object(**self._where.object(self._key), **rest)["Body"]
        chunk: bytes = self._body.read(size)
        if not chunk:
            raise IncompleteReadError(actual_bytes=self._at, expected_bytes=self._size)
        return chunk


def _pause(failures: int) -> None:
    time.sleep(random.uniform(0.5, 1) * PAUSE * 2 ** (failures - 1))
