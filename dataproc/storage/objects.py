"""A store of whole objects, on whatever fsspec opens. Blocking; to be called from threads, many at once.

Nothing here renames, and no listing is believed that fsspec may have cached: stores have no rename, and a listing lies
about what another node has just put.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec

from dataproc.errors import InvalidParams, StorageUnavailable
from dataproc.settings import Settings

CHUNK = 8 * 2**20  # bytes of one request for a part of a large object
SMALL = 4 * 2**20  # bytes that are read at once, and hashed as they are sent
AT_ONCE = 16  # requests under way
LARGE_AT_ONCE = 4  # large files being put: each has some chunks in memory
PARTS_AT_ONCE = 4
PATIENCE = 5.0  # seconds after which nothing is begun anew; what the store's own client tries comes on top
PAUSE = 0.2  # seconds before the second try
BULK = 1000  # objects that S3 removes in one request

T = TypeVar("T")


class Objects:
    """Objects by key under one fsspec URL. Raises StorageUnavailable where the store fails, retries and all.

    `threads` is where its calls are made from, so that there are never more at once than the store is to be given.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None, *, bulk: bool = False) -> None:
        """options: of the fsspec filesystem. bulk: whether it is S3, and removes many objects in one request."""
        try:
            fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **(options or {}))
        except ImportError as missing:
            raise InvalidParams(
                f"DATAPROC_STORAGE_URL needs a package: {missing}; for s3:// it is pip install 'dataproc[s3]'"
            ) from None
        self._fs: Any = fs
        self._root: str = root.rstrip("/")
        self.bulk = bulk and hasattr(fs, "_bulk_delete")
        if hasattr(fs, "retries"):
            fs.retries = 1  # s3fs repeats what its client has repeated already
        self._large = threading.BoundedSemaphore(LARGE_AT_ONCE)
        self.threads = ThreadPoolExecutor(AT_ONCE, "objects")

    @classmethod
    def of(cls, settings: Settings) -> Objects:
        """As the settings say. Raises InvalidParams where the URL cannot be opened."""
        if settings.storage_url.startswith(("s3://", "s3a://")):
            return cls(settings.storage_url, s3_options(settings), bulk=settings.s3_checksums)
        return cls(settings.storage_url)

    def read(self, key: str) -> bytes | None:
        """A small object; None where there is none."""
        found: bytes | None = self._tried(lambda: self._found(key))
        return found

    def write(self, key: str, data: bytes) -> None:
        """Put a small object, whole."""
        self._tried(lambda: self._fs.pipe_file(self._at(key), data))

    def upload(self, key: str, fd: int, size: int) -> tuple[int, str]:
        """Put a file of about that size, from its start: how many bytes that were, and their SHA-256 if it is sure."""
        if size <= SMALL:
            data = _all_of(fd, size)
            self.write(key, data)
            return len(data), hashlib.sha256(data).hexdigest()
        with self._large:
            before = os.fstat(fd)
            self._tried(lambda: self._put_large(key, fd))
            size, sha256 = _hashed(fd)
            after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and size == before.st_size:
            return size, sha256
        return int(self._tried(lambda: self._fs.info(self._at(key), refresh=True)["size"])), ""

    def part(self, key: str, start: int, end: int) -> bytes:
        """The bytes of an object from `start` up to `end`. Raises StorageUnavailable where it is gone, or shorter."""
        try:
            data: bytes = self._tried(lambda: self._fs.cat_file(self._at(key), start=start, end=end))
        except FileNotFoundError:
            raise StorageUnavailable("the store does not hold a file that it should", reason="object_missing") from None
        if len(data) != end - start:
            raise StorageUnavailable("the store holds a part of a file only", reason="object_cut")
        return data

    def copy(self, key: str, to: str) -> None:
        """Copy an object, in the store."""
        self._tried(lambda: self._fs.cp_file(self._at(key), self._at(to)))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        paths = [self._at(key) for key in keys]
        if self.bulk:
            for start in range(0, len(paths), BULK):
                some = paths[start : start + BULK]
                self._tried(lambda some=some: fsspec.asyn.sync(self._fs.loop, self._fs._bulk_delete, some))  # type: ignore[misc]
        else:
            for path in paths:
                with suppress(FileNotFoundError):
                    self._tried(lambda path=path: self._fs.rm_file(path))  # type: ignore[misc]

    def keys(self, prefix: str) -> dict[str, tuple[int, str]]:
        """The keys of all objects below `prefix`, with size and what the store says that changes with the content."""

        def found() -> dict[str, Any]:
            self._fs.invalidate_cache()
            try:
                listed: dict[str, Any] = self._fs.find(self._at(prefix), detail=True)
            except FileNotFoundError:
                return {}
            return listed

        start = len(self._root) + 1
        return {path[start:]: (info["size"] or 0, _version(info)) for path, info in self._tried(found).items()}

    def check(self) -> None:
        """Write and remove an object. Raises StorageUnavailable with what the store said, for its operator."""
        key = f"probe/{uuid.uuid4().hex}"
        try:
            self.write(key, b"1")
            self.remove([key])
        except (StorageUnavailable, FileNotFoundError) as error:
            cause = error.__cause__ or error
            told = f"{type(cause).__name__}: {cause}"
            raise StorageUnavailable(
                f"DATAPROC_STORAGE_URL: the object store cannot be written to ({told}): {_remedy(cause)}",
                reason=type(cause).__name__,
            ) from error

    def close(self) -> None:
        """Let what is under way end."""
        self.threads.shutdown(wait=True, cancel_futures=True)

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _found(self, key: str) -> bytes | None:
        try:
            found: bytes = self._fs.cat_file(self._at(key))
        except FileNotFoundError:
            return None
        return found

    def _put_large(self, key: str, fd: int) -> None:
        path = f"/proc/self/fd/{fd}"  # the very file, whatever lies at its name by now
        if hasattr(self._fs, "_upload_file_part_concurrent"):
            self._fs.put_file(path, self._at(key), chunksize=CHUNK, max_concurrency=PARTS_AT_ONCE)
        else:
            self._fs.put_file(path, self._at(key))

    def _tried(self, work: Callable[[], T]) -> T:
        """What `work` finds, tried again where the store fails in a way that may pass."""
        end = time.monotonic() + PATIENCE
        for attempt in itertools.count():
            try:
                return work()
            except (FileNotFoundError, StorageUnavailable):
                raise
            except PermissionError as error:
                raise _refused(error) from error
            except Exception as error:  # clients of stores raise what they like
                if _is_final(error) or time.monotonic() > end:
                    raise _refused(error) from error
                time.sleep(PAUSE * 2 ** min(attempt, 4) * random.uniform(0.5, 1.5))  # noqa: S311 - so that nodes do not meet again
        raise AssertionError("unreachable")


def s3_options(settings: Settings) -> dict[str, Any]:
    """The options of s3fs: what is not set here comes from the usual AWS_* variables and files."""
    config: dict[str, Any] = {
        "max_pool_connections": 2 * AT_ONCE,
        "retries": {"mode": "standard", "total_max_attempts": 4},
        "connect_timeout": 5,
        "read_timeout": 60,
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


def _version(info: dict[str, Any]) -> str:
    return str(
        info.get("ETag") or info.get("etag") or info.get("md5") or info.get("created") or info.get("mtime") or ""
    )


def _remedy(cause: BaseException) -> str:
    if isinstance(cause, FileNotFoundError):
        return "is the bucket there?"
    if isinstance(cause, PermissionError) or "Credentials" in type(cause).__name__:
        return "are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or DATAPROC_S3_…) right, and may they read and write?"
    return "is it up, and DATAPROC_S3_ENDPOINT (or AWS_ENDPOINT_URL) right?"


def _is_final(error: Exception) -> bool:
    return type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError", "ParamValidationError"}


def _refused(error: Exception) -> StorageUnavailable:
    """What is told: to callers only that the store fails, to the operator (by `__cause__` and `detail`) how."""
    return StorageUnavailable("the object store did not answer as it should; try again", reason=type(error).__name__)


def _all_of(fd: int, size: int) -> bytes:
    data = os.pread(fd, size + 1, 0)
    while more := os.pread(fd, SMALL, len(data)):  # it grew, or the read was short
        data += more
        if len(data) > 2 * SMALL:
            break
    return data


def _hashed(fd: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while chunk := os.pread(fd, CHUNK, size):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
