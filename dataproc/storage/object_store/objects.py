"""A store of whole objects, on whatever fsspec opens. Blocking; to be called from threads, many at once.

Nothing here renames, and no listing is believed that fsspec may have cached: stores have no rename, and a listing lies
about what another node has just put.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import fsspec

from dataproc.errors import InvalidParams, StorageUnavailable
from dataproc.telemetry import METRICS

CHUNK = 8 * 2**20  # bytes of one request; what is no larger is read at once
AT_ONCE = 16  # requests under way
LARGE_AT_ONCE = 4  # files above `CHUNK` that are being put: each may take minutes, and has some parts in memory
PATIENCE = 5.0  # seconds after which nothing is begun anew; what the one under way takes comes on top
PAUSE = 0.2  # seconds before the second try
BULK = 1000  # objects that S3 removes in one request

T = TypeVar("T")


class Objects:
    """Objects by key under one fsspec URL. Raises StorageUnavailable where the store fails, retries and all.

    `threads` is where its calls are made from, so that there are never more at once than the store is to be given;
    `large` is where large files are put from, so that they do not take all of those.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        """options: of the fsspec filesystem. Raises InvalidParams where the URL cannot be opened."""
        try:
            fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **(options or {}))
        except ImportError as missing:
            raise InvalidParams(
                f"DATAPROC_STORAGE_URL needs a package: {missing}; for s3:// it is pip install 'dataproc[s3]'"
            ) from None
        self._fs: Any = fs
        self._root: str = root.rstrip("/")
        self._scheme = url.partition("://")[0]
        self._given_up = threading.Event()
        self._under_way: set[Future[Any]] = set()
        self.answered = 0.0  # when the store did last, by the monotonic clock
        self.threads = ThreadPoolExecutor(AT_ONCE, "objects")
        self.large = ThreadPoolExecutor(LARGE_AT_ONCE, "large-objects")

    def read(self, key: str) -> bytes | None:
        """A small object; None where there is none."""
        try:
            return self._tried("get", lambda: self._bytes(key, None, None))
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> str:
        """Put a small object, whole; its version, empty where the store does not tell it at once."""
        self._tried("put", lambda: self._fs.pipe_file(self._at(key), data))
        return ""

    def version(self, key: str) -> str:
        """What the store says of an object that changes with its content, as in `keys`."""
        return _version(self._tried("head", lambda: self._fs.info(self._at(key))))

    def upload(self, key: str, fd: int, size: int) -> tuple[int, str, str]:
        """Put a file of about that size: how many bytes that were, their SHA-256 if it is sure, and as `write`."""
        if size <= CHUNK:
            data = _all_of(fd, size)
            return len(data), hashlib.sha256(data).hexdigest(), self.write(key, data)
        before, path = os.fstat(fd), self._at(key)
        self._tried(
            "put", lambda: self._fs.put_file(f"/proc/self/fd/{fd}", path)
        )  # the very file, whatever has its name now
        digest, after = _hashed(fd), os.fstat(fd)
        told = self._tried("head", lambda: self._fs.info(path))
        same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        return int(told["size"]), digest if same and told["size"] == after.st_size else "", _version(told)

    def part(self, key: str, start: int, end: int) -> bytes:
        """The bytes of an object from `start` up to `end`. Raises StorageUnavailable where it is gone, or shorter."""
        try:
            data = self._tried("get", lambda: self._bytes(key, start, end))
        except FileNotFoundError:
            raise StorageUnavailable("the store does not hold a file that it should", reason="object_missing") from None
        if len(data) != end - start:
            raise StorageUnavailable("the store holds a part of a file only", reason="object_cut")
        return data

    def copy(self, key: str, to: str, size: int) -> None:
        """Copy an object of that size, in the store."""
        self._tried("copy", lambda: self._fs.cp_file(self._at(key), self._at(to)))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        for key in keys:
            with suppress(FileNotFoundError):
                self._tried("delete", lambda key=key: self._fs.rm_file(self._at(key)))  # type: ignore[misc]

    @property
    def many(self) -> int:
        """How many objects are removed in one request."""
        return 1

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
        return {path[start:]: (info["size"] or 0, _version(info)) for path, info in self._tried("list", found).items()}

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

    def give_up(self) -> None:
        """Fail what is under way, and whatever is asked for from now on."""
        self._given_up.set()
        for request in list(self._under_way):
            request.cancel()

    def close(self) -> None:
        """The last that is done."""
        self.give_up()
        self.threads.shutdown(wait=True, cancel_futures=True)
        self.large.shutdown(wait=True, cancel_futures=True)

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _bytes(self, key: str, start: int | None, end: int | None) -> bytes:
        found: bytes = self._fs.cat_file(self._at(key), start=start, end=end)
        return found

    def _spawned(self, request: Coroutine[Any, Any, T]) -> Future[T]:
        """A request that is under way, in the loop of the filesystem."""
        future = asyncio.run_coroutine_threadsafe(request, self._fs.loop)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def _outcome(self, future: Future[T]) -> T:
        if self._given_up.is_set():
            future.cancel()
        try:
            return future.result()
        except CancelledError as cancelled:
            raise _refused(cancelled) from None

    def _awaited(self, request: Coroutine[Any, Any, T]) -> T:
        return self._outcome(self._spawned(request))

    def _tried(self, op: str, work: Callable[[], T]) -> T:
        """What `work` finds, tried again where the store fails in a way that may pass."""
        begun = time.monotonic()
        try:
            return self._repeated(work, begun + PATIENCE)
        finally:
            METRICS.storage_operation(self._scheme, op, time.monotonic() - begun)

    def _repeated(self, work: Callable[[], T], end: float) -> T:
        for attempt in itertools.count():
            if self._given_up.is_set():
                raise StorageUnavailable("the server is being stopped, and the object store does not answer")
            try:
                found = work()
            except FileNotFoundError:
                self.answered = time.monotonic()
                raise
            except StorageUnavailable:
                raise
            except PermissionError as error:
                raise _refused(error) from error
            except Exception as error:  # clients of stores raise what they like
                if _is_final(error) or time.monotonic() > end:
                    raise _refused(error) from error
                self._given_up.wait(PAUSE * 2 ** min(attempt, 4) * random.uniform(0.5, 1.5))  # noqa: S311 - so that nodes do not meet again
            else:
                self.answered = time.monotonic()
                return found
        raise AssertionError("unreachable")


def _version(info: dict[str, Any]) -> str:
    told = info.get("ETag") or info.get("etag") or info.get("md5") or info.get("created") or info.get("mtime") or ""
    return str(told).strip('"')


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
    while more := os.pread(fd, CHUNK, len(data)):  # it grew, or the read was short
        data += more
        if len(data) > size + CHUNK:
            break  # who writes that fast goes on: the next commit has the rest
    return data


def _hashed(fd: int) -> str:
    digest, size = hashlib.sha256(), 0
    while chunk := os.pread(fd, CHUNK, size):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest()
