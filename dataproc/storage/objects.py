"""A store of whole objects, on whatever fsspec opens. Blocking.

Nothing here renames, and no listing is believed that fsspec may have cached: stores have no rename, and a listing lies
about what another node has just put.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import fsspec

from dataproc.errors import StorageUnavailable

_CHUNK = 8 * 2**20


class Objects:
    """Objects by key under one fsspec URL. All methods raise OSError where the store fails."""

    def __init__(self, url: str) -> None:
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._fs: Any = fs
        self._root: str = root.rstrip("/")

    def read(self, key: str) -> bytes | None:
        """A small object; None where there is none."""
        try:
            found: bytes = self._fs.cat_file(self._at(key))
        except FileNotFoundError:
            return None
        return found

    def write(self, key: str, data: bytes) -> None:
        """Put a small object, whole."""
        self._fs.pipe_file(self._at(key), data)

    def upload(self, key: str, fd: int) -> int:
        """Put what the descriptor reads, to its end: how many bytes that were."""
        size = 0
        with self._fs.open(self._at(key), "wb") as into:
            while chunk := os.read(fd, _CHUNK):
                size += into.write(chunk)
        return size

    def download(self, key: str, size: int, fd: int) -> None:
        """Write an object of that size to the descriptor. Raises StorageUnavailable where it is gone, or another."""
        try:
            for start in range(0, size, _CHUNK):
                view = memoryview(self._fs.cat_file(self._at(key), start, min(start + _CHUNK, size)))
                while view:
                    view = view[os.write(fd, view) :]
        except FileNotFoundError:
            raise StorageUnavailable("the store does not hold a file that it should", reason="object_missing") from None
        if os.fstat(fd).st_size != size:
            raise StorageUnavailable("the store holds a part of a file only", reason="object_cut")

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        for key in keys:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._at(key))

    def keys(self, prefix: str) -> list[str]:
        """The keys of all objects below `prefix`."""
        self._fs.invalidate_cache()
        found: list[str] = self._fs.find(self._at(prefix))
        start = len(self._root) + 1
        return [path[start:] for path in found]

    def check(self) -> None:
        """Write and remove an object."""
        key = f"probe/{uuid.uuid4().hex}"
        self.write(key, b"")
        self.remove([key])

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"
