"""The files of a session: bytes go by plain HTTP, streamed, and a transfer that broke off is an error."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

from urllib3 import HTTPResponse

from dataproc_client.errors import Conflict, DataprocError, Forbidden, NotFound, Unauthorized, from_answer
from dataproc_client.rpc import json_object, unexpected
from dataproc_client.transport import Body, Response, Transport, translated

CHUNK = 1 << 18
BARE_STATUS = {401: Unauthorized, 403: Forbidden, 404: NotFound, 412: Conflict}  # for a reply without a body


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One entry of a listing. `path` is relative to the session directory; `size` is in bytes."""

    name: str
    path: str
    type: str
    size: int | None
    modified: datetime | None
    etag: str | None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> FileInfo:
        """The entry as the server wrote it."""
        moment = entry.get("modified")
        modified = datetime.fromisoformat(moment) if moment else None
        return cls(entry["name"], entry["path"], entry["type"], entry.get("size"), modified, entry.get("etag"))


class Files:
    """The session directory. Paths are relative to it, parts joined by `/`; a path that leads out is a ValueError."""

    def __init__(self, transport: Transport, root: str, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self._root = root
        self._headers = dict(headers)

    def list(self, path: str = "", *, recursive: bool = False) -> list[FileInfo]:
        """The entries of a directory; with `recursive` of all below it too."""
        folder = f"{path.rstrip('/')}/" if path else ""
        query = {"recursive": "true"} if recursive else {}
        found: list[FileInfo] = []
        while True:
            page = json_object(self._request("GET", folder, query=query, repeatable=True))
            found += map(FileInfo.of, page["entries"])
            if not page.get("cursor"):
                return found
            query["cursor"] = page["cursor"]

    def read(self, path: str) -> bytes:
        """A whole file."""
        return self._request("GET", path, repeatable=True).data

    def write(self, path: str, data: bytes | IO[bytes] | Iterable[bytes]) -> None:
        """Put a file there, whole or not at all, over what was there before; parent directories are made."""
        if isinstance(data, bytes | bytearray | memoryview):
            whole = bytes(data)
            self._put(path, whole, len(whole), hashlib.sha256(whole).digest(), repeatable=True)
        else:
            self._request("PUT", path, data)

    def upload(self, local: str | os.PathLike[str], path: str | None = None) -> str:
        """Send a local file, to its own name or to `path`; gives the path in the session."""
        source = Path(local)
        target = source.name if path is None else path
        with source.open("rb") as body:
            digest = hashlib.file_digest(body, "sha256").digest()
            size = body.seek(0, os.SEEK_END)
            body.seek(0)
            self._put(target, body, size, digest, repeatable=False)
        return target

    def download(self, path: str, local: str | os.PathLike[str] | None = None) -> Path:
        """Fetch a file to its own name here, or to `local` (a file, or a directory that exists); gives the local path.

        What was there before is replaced when the file has come whole.
        """
        name = path.rsplit("/", 1)[-1]
        target = Path(name if local is None else local)
        if target.is_dir():
            target /= name
        with self.open(path) as source, _replacing(target) as copy:
            while chunk := source.read(CHUNK):
                copy.write(chunk)
        return target

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """A file for reading as it comes in: `with session.files.open("big.csv") as lines: …`."""
        reply = self._request("GET", path, repeatable=True, stream=True)
        assert isinstance(reply, HTTPResponse)
        reply.auto_close = False  # else it closes itself at its end, under the reader
        try:
            with translated(repeatable=True):
                yield io.BufferedReader(reply, CHUNK)
        finally:
            reply.close()

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file; a directory only with `recursive`."""
        self._request("DELETE", path, query={"recursive": "true"} if recursive else {})

    def _put(self, path: str, body: bytes | IO[bytes], size: int, digest: bytes, repeatable: bool) -> None:
        headers = {"Content-Length": str(size), "Content-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:"}
        self._request("PUT", path, body, headers=headers, repeatable=repeatable)

    def _request(
        self,
        method: str,
        path: str,
        body: Body = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        stream: bool = False,
    ) -> Response:
        target = self._root + _quoted(path) + (f"?{urlencode(query)}" if query else "")
        sent = {**self._headers, **(headers or {})}
        reply = self._transport.request(method, target, sent, body, repeatable=repeatable, stream=stream)
        if reply.status < 300:
            return reply
        with translated(repeatable):
            _ = reply.data  # read, so that the connection can be used again
        raise _refusal(reply, path)


def _quoted(path: str) -> str:
    """The path for a URL. Checked here, since `..` would be resolved on the way and meet some other address."""
    parts = path.split("/")
    if path.startswith("/") or "\0" in path or any(part in (".", "..") for part in parts):
        raise ValueError(f"not a path inside the session directory: {path!r}")
    return quote(path, safe="/")


def _refusal(reply: Response, path: str) -> DataprocError:
    try:
        return from_answer(json.loads(reply.data)["error"])
    except (ValueError, KeyError, TypeError):
        kind = BARE_STATUS.get(reply.status)
        return kind(f"{path!r}: status {reply.status}") if kind else unexpected(reply)


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file beside `target` that takes its place when the block ends well, and vanishes when not."""
    handle, beside = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as copy:
            yield copy
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)  # mkstemp's files are private
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise
