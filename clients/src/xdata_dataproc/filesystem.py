"""A session as an fsspec filesystem, `xdata://`: for pandas, pyarrow, DuckDB and whatever else opens such addresses.

`pandas.read_parquet("xdata://result.parquet", storage_options={"endpoint": …, "session_token": …})`; what
is left out comes from the environment, as for `Client`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from dataproc_client.errors import InvalidParams, NotFound
from dataproc_client.transport import DEFAULT_TIMEOUT
from xdata_dataproc.files import FileInfo, Files
from xdata_dataproc.session import Client, Session


class XDataFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files of one session. Directories are there when something is in them."""

    protocol = "xdata"
    root_marker = ""

    def __init__(
        self,
        endpoint: str | None = None,
        session_token: str | None = None,
        *,
        session: Session | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        """endpoint: the server's address. session: an open one, instead of `endpoint` and `session_token`."""
        super().__init__(**options)
        if session is None:
            session = Client(endpoint, session_token=session_token, timeout=timeout).session()
        self.files: Files = session.files

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return str(path).removeprefix("xdata://").strip("/")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, type, size and times of a file or directory."""
        path = self._strip_protocol(path)
        if path:
            try:
                return _shown(self.files.info(path))
            except (NotFound, InvalidParams):
                pass
        try:
            self.files.list(path, limit=1)
        except NotFound:
            if not path:  # nothing was ever put into the session
                return _folder(path)
            raise FileNotFoundError(path) from None
        return _folder(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What is in a directory; a file is itself."""
        path = self._strip_protocol(path)
        try:
            found = [_shown(entry) for entry in self.files.list(path)]
        except NotFound:
            found = [self.info(path)]
            if found[0]["type"] == "directory":
                found = []
        return found if detail else [entry["name"] for entry in found]

    def created(self, path: str) -> datetime:
        """The same as `modified`."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """When a file was last written to."""
        moment = self.info(path).get("modified")
        if moment is None:
            raise FileNotFoundError(path)
        return moment  # type: ignore[no-any-return]

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Nothing: a directory is made by the first file that is put in it."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing, as `mkdir`."""

    def rmdir(self, path: str) -> None:
        """Delete a directory with nothing in it."""
        if self.ls(path):
            raise OSError(f"{path}: there is something in it")
        self._rm(path, recursive=True)

    def rm(self, path: str | Iterable[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files, with `recursive` directories too."""
        if maxdepth is not None:
            super().rm(path, recursive, maxdepth)
            return
        for each in [path] if isinstance(path, str) else path:
            for found in self.expand_path(each) if "*" in each else [each]:
                self._rm(found, recursive)

    def _rm(self, path: str, recursive: bool = False) -> None:
        try:
            self.files.delete(self._strip_protocol(path), recursive=recursive)
        except NotFound:
            raise FileNotFoundError(path) from None

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy by way of this machine; a directory is made by what is in it."""
        if self.isdir(path1):
            return
        with self.open(path1, "rb") as source, self.open(path2, "wb") as target:
            while piece := source.read(2**20):
                target.write(piece)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A file, or a part of it; negative places count from its end."""
        path = self._strip_protocol(path)
        if (start or 0) < 0 or (end or 0) < 0:
            size = self.info(path)["size"]
            start, end = (at + size if at is not None and at < 0 else at for at in (start, end))
        return self._part(path, start or 0, end)

    def _part(self, path: str, start: int, end: int | None) -> bytes:
        try:
            return self.files.read(path, start=start, end=end)
        except NotFound:
            raise FileNotFoundError(path) from None

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Put bytes there, whole or not at all."""
        self.files.write(self._strip_protocol(path), value, new=mode == "create")

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **_: Any) -> None:
        """Upload a local file; a directory is made by what is in it."""
        if not os.path.isdir(lpath):
            self.files.upload(lpath, self._strip_protocol(rpath))

    def get_file(self, rpath: str, lpath: Any, callback: Any = None, outfile: Any = None, **options: Any) -> None:
        """Download a file, whole or not at all; for a directory, one is made."""
        if outfile is not None or not isinstance(lpath, str):
            super().get_file(rpath, lpath, outfile=outfile, **options)
            return
        os.makedirs(os.path.dirname(lpath) or ".", exist_ok=True)
        try:
            self.files.download(self._strip_protocol(rpath), lpath)
        except NotFound:
            raise FileNotFoundError(rpath) from None
        except InvalidParams:
            if not self.isdir(rpath):
                raise
            os.makedirs(lpath, exist_ok=True)

    def _open(
        self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True,
        cache_options: Any = None, **options: Any,
    ) -> Any:  # fmt: skip
        if mode == "rb":
            if options.get("size") is None:
                options["size"] = self._size(path)
            return _Reading(self, path, mode, block_size or "default", cache_options=cache_options, **options)
        if mode == "ab":
            held = self.cat_file(path) if self.exists(path) else b""
            writing = self.files.open(path, "wb")
            writing.write(held)
            return writing
        if mode not in ("wb", "xb"):
            raise ValueError(f"no such mode: {mode!r}")
        return self.files.open(path, mode)

    def _size(self, path: str) -> int:
        found = self.info(path)
        if found["type"] == "directory":
            raise IsADirectoryError(path)
        return int(found["size"])


class _Reading(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read by ranges, as far as they are asked for."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs._part(self.path, start, end) if end > start else b""

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        piece = self.read(len(memoryview(buffer).cast("B")))
        memoryview(buffer).cast("B")[: len(piece)] = piece
        return len(piece)

    def seek(self, loc: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere in it."""
        return int(super().seek(loc, whence))


def _shown(entry: FileInfo) -> dict[str, Any]:
    kind = "directory" if entry.type == "directory" else "file"
    return {
        "name": entry.path, "type": kind, "size": entry.size if kind == "file" else 0,
        "modified": entry.modified, "created": entry.modified, "ETag": entry.etag,
    }  # fmt: skip


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "type": "directory", "size": 0}
