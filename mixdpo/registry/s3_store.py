"""A registry kept in a bucket of S3, or of any store that speaks S3 and has conditional writes."""

from __future__ import annotations

import hashlib
import random
import time
from base64 import b64encode
from pathlib import Path
from typing import BinaryIO

from botocore.exceptions import ClientError

from mixdpo.registry.s3_client import connect
from mixdpo.registry.s3_errors import s3_errors, status
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.s3_probe import check_conditional_writes
from mixdpo.registry.s3_stream import open_object, read_object
from mixdpo.registry.s3_upload import Uploader, composite_digest
from mixdpo.registry.store import Sent, Stored, check_digest, chunks, stream_digest, unwatched

PART = 16 << 20  # bytes; larger files go in parts of this size
CONFLICTS = 8  # answers "another writer is at it" in a row


class S3Store:
    """Keys are objects below the location's prefix. Before its first write it makes sure that the bucket keeps what was
    put first (`check_conditional_writes`); reading needs no write access.
    """

    def __init__(self, where: S3Location, part: int = PART) -> None:
        self.where, self._part = where, part
        self.client, self._vouches = connect(where)
        self._uploader = Uploader(self.client, where, part)

    @property
    def location(self) -> str:
        return str(self.where)

    def check_writable(self) -> None:
        """Raises StorageError where the bucket cannot be written, or not safely; asks it once a process."""
        check_conditional_writes(self.client.meta.endpoint_url, self.where, self._put)

    def put_once(self, key: str, content: bytes | Path, sha256: str, sent: Sent = unwatched) -> bool:
        self.check_writable()
        if isinstance(content, Path):
            if self.exists(key):  # before megabytes travel for nothing
                return False
            if content.stat().st_size > self._part:
                return self._uploader.put(key, content, sha256, sent)
        body = b"".join(chunks(content))
        check_digest(key, content, sha256, hashlib.sha256(body).hexdigest())
        put = self._put(key, body, sha256)
        sent(len(body))
        return put

    def holds(self, key: str, content: bytes | Path, sha256: str) -> bool:
        if self._vouches:
            with s3_errors(self.where, f"look at {key}"):
                head = self.client.head_object(**self.where.object(key), ChecksumMode="ENABLED")
            vouched = head.get("ChecksumSHA256")
            if vouched == b64encode(bytes.fromhex(sha256)).decode():
                return True
            if vouched and "-" in vouched and isinstance(content, Path):  # it came in parts: "…=-7"
                return composite_digest(content, self._part) == (sha256, vouched)
        with self.open(key) as stream:
            return stream_digest(stream) == sha256

    def read(self, key: str, limit: int) -> bytes:
        return read_object(self.client, self.where, key, limit, self._vouches)

    def open(self, key: str) -> BinaryIO:
        return open_object(self.client, self.where, key)

    def size(self, key: str) -> int:
        with s3_errors(self.where, f"look at {key}"):
            return int(self.client.head_object(**self.where.object(key))["ContentLength"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def unfinished(self, prefix: str) -> list[Stored]:
        with s3_errors(self.where, f"list unfinished uploads of {prefix}"):
            return sorted(self._uploader.unfinished(prefix))

    def list(self, prefix: str, after: str = "") -> list[Stored]:
        request = {"Bucket": self.where.bucket, "Prefix": self.where.full_key(prefix)}
        if after:
            request["StartAfter"] = self.where.full_key(after)
        with s3_errors(self.where, f"list {prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(**request)
            found = [each for page in pages for each in page.get("Contents", ())]
        return sorted(
            Stored(self.where.own_key(each["Key"]), each["Size"], each["LastModified"].timestamp()) for each in found
        )

    def remove(self, stored: Stored) -> None:
        with s3_errors(self.where, f"remove {stored.key}"):
            if stored.upload:
                self._uploader.abort(stored.key, stored.upload)
            else:
                self.client.delete_object(**self.where.object(stored.key))

    def _put(self, key: str, body: bytes, sha256: str) -> bool:
        """One conditional request, made again while it meets another one at the same moment."""
        request = {"Body": body, "IfNoneMatch": "*", "ChecksumSHA256": b64encode(bytes.fromhex(sha256)).decode()}
        with s3_errors(self.where, f"put {key}"):
            for conflicts in range(1, CONFLICTS + 1):
                try:
                    self.client.put_object(**self.where.object(key), **request)
                    return True
                except ClientError as error:
                    if status(error) == 412:
                        return False
                    # neither has won yet: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
                    if status(error) != 409 or conflicts == CONFLICTS:
                        raise
                time.sleep(random.uniform(0, 0.1 * 2**conflicts))
        raise AssertionError("unreachable")
