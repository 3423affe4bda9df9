"""The files of a session: bytes go by plain HTTP, streamed, and a transfer that broke off is an error."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, urlencode

from urllib3 import HTTPResponse

from dataproc_client.errors import (
    Conflict,
    ConnectionLost,
    DataprocError,
    Forbidden,
    InvalidParams,
    NotFound,
    Unauthorized,
    from_answer,
)
from dataproc_client.rpc import json_object, unexpected
from dataproc_client.transport import Body, Response, Transport, translated
from xdata_dataproc.progress import Progress, advancing
from xdata_dataproc.streams import Incoming, Outgoing, OutgoingText

CHUNK = 1 << 18
PAGE = 10_000  # entries asked for at once, the most that a server gives
BARE_STATUS = {
    400: InvalidParams,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    412: Conflict,
}  # for a reply without a body


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

    def list(
        self, path: str = "", *, recursive: bool = False, glob: str | None = None, limit: int | None = None
    ) -> list[FileInfo]:
        """The entries of a directory; with `recursive` of all below it too, with `glob` those that match."""
        folder = f"{path.rstrip('/')}/" if path else ""
        query = {"recursive": "true"} if recursive else {}
        query |= {} if glob is None else {"glob": glob}
        query["limit"] = str(PAGE if limit is None else limit)
        found: list[FileInfo] = []
        while True:
            page = json_object(self._request("GET", folder, query=query, repeatable=True))
            found += map(FileInfo.of, page["entries"])
            if not page.get("cursor") or (limit is not None and len(found) >= limit):
                return found
            query["cursor"] = page["cursor"]

    def info(self, path: str) -> FileInfo:
        """Size, time and ETag of a file. Raises `NotFound`, and `InvalidParams` for a directory."""
        told = self._request("HEAD", path, repeatable=True).headers
        moment = told.get("Last-Modified")
        modified = parsedate_to_datetime(moment) if moment else None
        name = path.rsplit("/", 1)[-1]
        return FileInfo(name, path, "file", int(told.get("Content-Length", 0)), modified, told.get("ETag"))

    def read(self, path: str, *, start: int = 0, end: int | None = None) -> bytes:
        """A whole file, or its bytes from `start` up to, but without, `end`."""
        if not start and end is None:
            return self._request("GET", path, repeatable=True).data
        if end is not None and end <= start:
            return b""
        asked = {"Range": f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"}
        reply = self._send("GET", path, headers=asked, repeatable=True)
        if reply.status == 416:
            return b""
        return reply.data if reply.status == 206 else self._checked(reply, path).data[start:end]

    def write(self, path: str, data: bytes | IO[bytes] | Iterable[bytes], *, new: bool = False) -> None:
        """Put a file there, whole or not at all, over what was there before; parent directories are made.

        new: only where nothing is there yet, else FileExistsError.
        """
        if isinstance(data, bytes | bytearray | memoryview):
            whole = bytes(data)
            self._put(path, whole, len(whole), hashlib.sha256(whole).digest(), repeatable=not new, new=new)
        else:
            self._request("PUT", path, data, headers=_condition(new))

    def upload(self, local: str | os.PathLike[str], path: str | None = None, *, progress: Progress = False) -> str:
        """Send a local file, to its own name or to `path`; gives the path in the session."""
        source = Path(local)
        target = source.name if path is None else path
        with source.open("rb") as body:
            digest = hashlib.file_digest(body, "sha256").digest()
            size = body.seek(0, os.SEEK_END)
            body.seek(0)
            with advancing(progress, target, size) as advance:
                sent = _Told(body, advance) if progress else body
                self._put(target, cast("IO[bytes]", sent), size, digest, repeatable=False)
        return target

    def download(
        self, path: str, local: str | os.PathLike[str] | None = None, *, progress: Progress = False, verify: bool = True
    ) -> Path:
        """Fetch a file to its own name here, or to `local` (a file, or a directory that exists); gives the local path.

        What was there before is replaced when the file has come whole. A transfer that breaks off goes on where it
        was. verify: compare its SHA-256 with that of the server's file, if that has not been changed meanwhile.
        """
        name = path.rsplit("/", 1)[-1]
        target = Path(name if local is None else local)
        if target.is_dir():
            target /= name
        with Incoming(partial(self._from, path)) as source, _replacing(target) as copy:
            digest = hashlib.sha256()
            with advancing(progress, name, source.size) as advance:
                while chunk := source.read(CHUNK):
                    copy.write(chunk)
                    digest.update(chunk)
                    advance(len(chunk))
            if verify:
                self._compare(path, source.etag, digest.digest())
        return target

    def open(self, path: str, mode: str = "rb", *, encoding: str = "utf-8") -> Any:
        """A file to be read as it comes in, or written; best in `with session.files.open("big.csv") as lines: …`.

        mode: `rb`, `r`, `wb`, `w`, `xb`, `x`. What is written is sent when the file is closed, whole or not at all;
        where the block is left by an error, it is not. `x` is for a file that is not there yet.
        """
        kind, text = mode.replace("b", "").replace("t", ""), "b" not in mode
        if kind == "r":
            reading = io.BufferedReader(Incoming(partial(self._from, path)), CHUNK)
            return io.TextIOWrapper(reading, encoding) if text else reading
        if kind not in ("w", "x"):
            raise ValueError(f"no such mode: {mode!r}")
        _quoted(path)
        writing = Outgoing(partial(self._put_spooled, path, new=kind == "x"))
        return OutgoingText(cast("IO[bytes]", writing), encoding) if text else writing

    def _from(self, path: str, start: int, etag: str | None) -> Response:
        headers = {"Range": f"bytes={start}-", "If-Range": etag or ""} if start else {}
        reply = self._request("GET", path, headers=headers, repeatable=True, stream=True)
        cast("HTTPResponse", reply).auto_close = False  # else it closes itself at its end, under the reader
        return reply

    def _compare(self, path: str, etag: str | None, sha256: bytes) -> None:
        told = self._send("HEAD", path, headers={"Want-Repr-Digest": "sha-256=10"}, repeatable=True).headers
        theirs = told.get("Repr-Digest")
        if theirs is not None and told.get("ETag") == etag and theirs != _digest(sha256):
            raise ConnectionLost(f"{path!r}: what arrived is not what was sent", retryable=True)

    def _put_spooled(self, path: str, body: IO[bytes], new: bool) -> None:
        digest = hashlib.sha256()
        while chunk := body.read(CHUNK):
            digest.update(chunk)
        size = body.tell()
        body.seek(0)
        self._put(path, body, size, digest.digest(), repeatable=False, new=new)

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file; a directory only with `recursive`."""
        self._request("DELETE", path, query={"recursive": "true"} if recursive else {})

    def _put(
        self, path: str, body: bytes | IO[bytes], size: int, digest: bytes, repeatable: bool, new: bool = False
    ) -> None:
        headers = {"Content-Length": str(size), "Content-Digest": _digest(digest), **_condition(new)}
        try:
            self._request("PUT", path, body, headers=headers, repeatable=repeatable)
        except Conflict as error:
            if new:
                raise FileExistsError(path) from error
            raise

    def _request(self, method: str, path: str, body: Body = None, **more: Any) -> Response:
        return self._checked(self._send(method, path, body, **more), path)

    def _checked(self, reply: Response, path: str) -> Response:
        if reply.status < 300:
            return reply
        with translated(repeatable=False):
            _ = reply.data  # read, so that the connection can be used again
        raise _refusal(reply, path)

    def _send(
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
        return self._transport.request(method, target, sent, body, repeatable=repeatable, stream=stream)


class _Told:
    """A file that tells of what is read from it."""

    def __init__(self, body: IO[bytes], advance: Callable[[int], None]) -> None:
        self._body, self._advance = body, advance

    def read(self, size: int = -1) -> bytes:
        piece = self._body.read(size)
        self._advance(len(piece))
        return piece


def _condition(new: bool) -> dict[str, str]:
    return {"If-None-Match": "*"} if new else {}


def _digest(sha256: bytes) -> str:
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


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
