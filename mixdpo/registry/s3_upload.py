"""A large file to an object in parts, side by side; parts that arrived before an interruption are not sent again."""

from __future__ import annotations

import hashlib
import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from mixdpo.errors import TransientError
from mixdpo.registry.s3_errors import code, s3_errors, status
from mixdpo.registry.s3_location import S3Location
from mixdpo.registry.store import Sent, Stored, check_digest, chunks

MAX_PARTS = 10_000  # S3 allows no more
SENDERS = 4  # parts of one file at once
RESTARTS = 3
# The upload was completed or aborted by another writer of the same bytes, or one of its parts was sent again.
_OVERTAKEN = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "ConditionalRequestConflict"}


def base64_sha256(body: bytes) -> str:
    return b64encode(hashlib.sha256(body).digest()).decode()


def part_bytes(size: int, smallest: int) -> int:
    """How long each part but the last of a file of `size` bytes is: the same at every try, so that parts fit."""
    return max(smallest, -(-size // MAX_PARTS))


def composite_digest(path: Path, smallest: int) -> tuple[str, str]:
    """sha256 (hex) of a file, and what S3 calls the checksum of the same bytes where they came in parts."""
    whole, parts, count = hashlib.sha256(), hashlib.sha256(), 0
    for body in chunks(path, part_bytes(path.stat().st_size, smallest)):
        whole.update(body)
        parts.update(hashlib.sha256(body).digest())
        count += 1
    return whole.hexdigest(), f"{b64encode(parts.digest()).decode()}-{count}"


class Uploader:
    """Sends large files to one location. At most `memory` parts are held at once, whatever number of files is sent."""

    def __init__(self, client: Any, where: S3Location, smallest: int, memory: int = 2 * SENDERS) -> None:
        self._client, self._where, self._smallest = client, where, smallest
        self._memory = threading.BoundedSemaphore(memory)

    def put(self, key: str, path: Path, sha256: str, sent: Sent) -> bool:
        """Put the file at `key` unless it is taken; False where it is.

        Raises:
            RegistryError: the file does not have the digest `sha256`. As `s3_errors`, otherwise.
        """
        for _ in range(RESTARTS):
            with s3_errors(self._where, f"put {key}"):
                try:
                    self._try(key, path, sha256, sent)
                    return True
                except ClientError as error:
                    if status(error) == 412 or (code(error) in _OVERTAKEN and self._is_there(key)):
                        return False  # also after a lost reply to one's own completion
                    if code(error) not in _OVERTAKEN:
                        raise
        raise TransientError(f"cannot put {key} in {self._where}: other writers of it came between; run again")

    def abort(self, key: str, upload: str) -> None:
        """Forget an unfinished upload and its parts; nothing happens where it is gone."""
        try:
            self._client.abort_multipart_upload(**self._where.object(key), UploadId=upload)
        except ClientError as error:
            if code(error) != "NoSuchUpload":
                raise

    def _try(self, key: str, path: Path, sha256: str, sent: Sent) -> None:
        upload, arrived = self._begin(key)
        request = {**self._where.object(key), "UploadId": upload}
        whole, futures = hashlib.sha256(), list[Future]()
        with ThreadPoolExecutor(SENDERS) as pool:
            try:
                for number, body in enumerate(self._bodies(path), start=1):
                    whole.update(body)
                    futures.append(pool.submit(self._part, request, number, body, arrived.get(number), sent))
                    # what is read is held until it is sent, and then makes room for another part
                    futures[-1].add_done_callback(lambda _: self._memory.release())
                    if any(future.done() and future.exception() for future in futures):
                        break
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        for future in futures:
            if not future.cancelled():
                future.result()
        if whole.hexdigest() != sha256:
            self.abort(key, upload)
        check_digest(key, path, sha256, whole.hexdigest())
        parts = {"Parts": [future.result() for future in futures]}
        try:
            self._client.complete_multipart_upload(**request, MultipartUpload=parts, IfNoneMatch="*")
        except ClientError as error:
            if status(error) == 412:
                self.abort(key, upload)
            raise

    def _bodies(self, path: Path) -> Iterator[bytes]:
        """The parts of a file, each once there is memory for it; whoever takes one releases its share of the memory."""
        bodies = chunks(path, part_bytes(path.stat().st_size, self._smallest))
        while True:
            self._memory.acquire()
            try:
                body = next(bodies, None)
            except BaseException:
                self._memory.release()
                raise
            if body is None:
                self._memory.release()
                return
            yield body

    def _part(
        self, request: dict[str, str], number: int, body: bytes, arrived: dict[str, Any] | None, sent: Sent
    ) -> dict[str, Any]:
        """Send one part, unless these bytes arrived before; what completion wants to know of it."""
        digest = base64_sha256(body)
        if arrived is None or not _same(arrived, body, digest):
            arrived = self._client.upload_part(**request, PartNumber=number, Body=body, ChecksumSHA256=digest)
        sent(len(body))
        return {"PartNumber": number, "ETag": arrived["ETag"], "ChecksumSHA256": digest}

    def unfinished(self, prefix: str) -> list[Stored]:
        """What was begun below `prefix` and not completed; its size is what has arrived."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._where.bucket, Prefix=self._where.full_key(prefix)
        )
        found = []
        for each in (each for page in pages for each in page.get("Uploads", ())):
            key, upload = self._where.own_key(each["Key"]), each["UploadId"]
            size = sum(part["Size"] for part in self._parts(key, upload).values())
            found.append(Stored(key, size, each["Initiated"].timestamp(), upload))
        return found

    def _begin(self, key: str) -> tuple[str, dict[int, dict[str, Any]]]:
        """The unfinished upload of `key` that has most, with its parts by number; a new one where there is none."""
        try:
            found = [each for each in self.unfinished(key) if each.key == key]
        except ClientError as error:
            if status(error) not in (403, 501):  # a matter of saving time, for which not everyone has the permission
                raise
            found = []
        if found:
            best = max(found, key=lambda each: (each.size, each.upload))
            return best.upload, self._parts(key, best.upload)
        answer = self._client.create_multipart_upload(**self._where.object(key), ChecksumAlgorithm="SHA256")
        return str(answer["UploadId"]), {}

    def _parts(self, key: str, upload: str) -> dict[int, dict[str, Any]]:
        pages = self._client.get_paginator("list_parts").paginate(**self._where.object(key), UploadId=upload)
        try:
            return {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        except ClientError as error:
            if status(error) == 403 or code(error) == "NoSuchUpload":
                return {}
            raise

    def _is_there(self, key: str) -> bool:
        try:
            self._client.head_object(**self._where.object(key))
        except ClientError as error:
            if status(error) == 404:
                return False
            raise
        return True


def _same(arrived: dict[str, Any], body: bytes, digest: str) -> bool:
    """Whether a part that the store lists is `body`; where it keeps no sha256, its ETag is the md5."""
    if "ChecksumSHA256" in arrived:
        return bool(arrived["ChecksumSHA256"] == digest)
    return bool(arrived["ETag"].strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest())
