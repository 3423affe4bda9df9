"""Objects on S3 and what speaks like it: s3fs for its client, its regions and its errors; the requests are our own.

Each request is tried again by itself, so that one that fails in the middle of a large file costs a part of it.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from dataproc.errors import DataprocError
from dataproc.settings import Settings
from dataproc.storage.object_store.objects import AT_ONCE, BULK, CHUNK, Objects

PARTS_AT_ONCE = 4
MOST_PARTS = 10_000
COPIED_AT_ONCE = 5 * 2**30  # bytes, the most that S3 copies in one request


class S3Objects(Objects):
    """Objects in a bucket, or below a prefix in one."""

    def __init__(self, url: str, options: dict[str, Any], *, bulk: bool) -> None:
        """bulk: whether many objects are removed in one request."""
        super().__init__(url, options)
        self._fs.retries = 1  # s3fs repeats what is repeated here
        self._bucket, _, self._prefix = self._root.partition("/")
        self._bulk = bulk

    def write(self, key: str, data: bytes) -> str:
        told = self._asked("put_object", key, Body=data)
        return _plain(told["ETag"])

    def upload(self, key: str, fd: int, size: int) -> tuple[int, str, str]:
        if size <= CHUNK:
            return super().upload(key, fd, size)
        return self._put_parts(key, fd, max(CHUNK, -(-2 * size // MOST_PARTS)))

    def copy(self, key: str, to: str, size: int) -> None:
        if size > COPIED_AT_ONCE:
            super().copy(key, to, size)
        else:
            self._asked("copy_object", to, CopySource={"Bucket": self._bucket, "Key": self._full(key)})

    def remove(self, keys: Iterable[str]) -> None:
        if not self._bulk:
            return super().remove(keys)
        paths = [self._at(key) for key in keys]
        for start in range(0, len(paths), BULK):
            some = paths[start : start + BULK]
            self._tried("delete", lambda some=some: self._awaited(self._fs._bulk_delete(some)))  # type: ignore[misc]
        return None

    @property
    def many(self) -> int:
        return BULK if self._bulk else 1

    # ---------------------------------------------------------------------------------------------------- requests

    def _bytes(self, key: str, start: int | None, end: int | None) -> bytes:
        whole = start is None or end is None
        span = {} if whole else {"Range": f"bytes={start}-{end - 1}"}  # type: ignore[operator]

        async def got() -> bytes:
            reply = await self._fs._call_s3("get_object", Bucket=self._bucket, Key=self._full(key), **span)
            try:
                data: bytes = await reply["Body"].read()
            finally:
                reply["Body"].close()
            return data

        return self._awaited(got())

    def _asked(self, method: str, key: str, **what: Any) -> Any:
        return self._tried(method.partition("_")[0], lambda: self._awaited(self._begun(method, key, **what)))

    def _begun(self, method: str, key: str, **what: Any) -> Any:
        return self._fs._call_s3(method, Bucket=self._bucket, Key=self._full(key), **what)

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    # -------------------------------------------------------------------------------------------------- large files

    def _put_parts(self, key: str, fd: int, each: int) -> tuple[int, str, str]:
        """What is read is what is hashed and sent, whatever is written to the file meanwhile."""
        upload = self._asked("create_multipart_upload", key)["UploadId"]
        try:
            digest, size, tags = hashlib.sha256(), 0, list[str]()
            under_way: deque[tuple[Future[Any], bytes]] = deque()
            while data := _block(fd, size, each):
                if len(under_way) >= PARTS_AT_ONCE:
                    tags.append(self._part_put(key, upload, len(tags) + 1, *under_way.popleft()))
                number = len(tags) + len(under_way) + 1
                under_way.append((self._spawned(self._part(key, upload, number, data)), data))
                digest.update(data)
                size += len(data)
            while under_way:
                tags.append(self._part_put(key, upload, len(tags) + 1, *under_way.popleft()))
            parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
            told = self._asked("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(DataprocError, FileNotFoundError):
                self._asked("abort_multipart_upload", key, UploadId=upload)
            raise
        return size, digest.hexdigest(), _plain(told["ETag"])

    def _part(self, key: str, upload: str, number: int, data: bytes) -> Any:
        return self._begun("upload_part", key, UploadId=upload, PartNumber=number, Body=data)

    def _part_put(self, key: str, upload: str, number: int, first: Future[Any], data: bytes) -> str:
        """What the store calls a part whose first try is under way."""
        tries = [first]

        def again() -> Any:
            return self._outcome(tries.pop() if tries else self._spawned(self._part(key, upload, number, data)))

        tag: str = self._tried("upload", again)["ETag"]
        return tag


def _block(fd: int, start: int, size: int) -> bytes:
    data = os.pread(fd, size, start)
    while 0 < len(data) < size and (more := os.pread(fd, size - len(data), start + len(data))):
        data += more
    return data


def _plain(tag: str) -> str:
    return tag.strip('"')


def objects_of(settings: Settings) -> Objects:
    """As the settings say. Raises InvalidParams where the URL cannot be opened."""
    if settings.storage_url.startswith(("s3://", "s3a://")):
        return S3Objects(settings.storage_url, s3_options(settings, 1), bulk=settings.s3_checksums)
    return Objects(settings.storage_url)


def s3_options(settings: Settings, attempts: int = 4) -> dict[str, Any]:
    """The options of s3fs: what is not set here comes from the usual AWS_* variables and files.

    attempts: at each request, by the client.
    """
    config: dict[str, Any] = {
        "max_pool_connections": 2 * AT_ONCE,
        "retries": {"mode": "standard", "total_max_attempts": attempts},
        "connect_timeout": min(5.0, settings.s3_timeout),
        "read_timeout": settings.s3_timeout,
        "user_agent": "dataproc",  # the client's own is composed anew for each request, at a twentieth of its time
    }
    if _path_style(settings):
        config["s3"] = {"addressing_style": "path"}
    if not settings.s3_checksums:
        config |= {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    secret, token = settings.s3_secret_access_key, settings.s3_session_token
    given = {
        "endpoint_url": settings.s3_endpoint,
        "key": settings.s3_access_key_id,
        "secret": secret and secret.get_secret_value(),
        "token": token and token.get_secret_value(),
        "client_kwargs": {"region_name": settings.s3_region} if settings.s3_region else None,
    }
    return {"config_kwargs": config, **{name: value for name, value in given.items() if value}}


def _path_style(settings: Settings) -> bool:
    """As set; else whether the endpoint is another than Amazon's, which few give a name for each bucket."""
    if settings.s3_path_style is not None:
        return settings.s3_path_style
    named = (settings.s3_endpoint, os.environ.get("AWS_ENDPOINT_URL_S3"), os.environ.get("AWS_ENDPOINT_URL"))
    endpoint = next((url for url in named if url), None)
    return endpoint is not None and not (urlsplit(endpoint).hostname or "").endswith("amazonaws.com")
