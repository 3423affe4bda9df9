"""Files to and from a server: with a bar where somebody watches, and compared by their SHA-256 afterwards."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote, urlencode

from dataproc.cli.problems import CommandError, Exit
from dataproc.cli.remote import Remote

FILES = "/api/v1/dataproc/files/"
PIECE = 1 << 20
WATCHED_FROM = 4 << 20  # bytes from which on a bar is worth its line
DIGEST = "Repr-Digest"


class _Source(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Transfer:
    """The files of the session that the environment names."""

    def __init__(self) -> None:
        self._remote = Remote()
        self._who = self._remote.session_only()

    def listing(self, path: str, recursive: bool, glob: str | None) -> list[dict[str, Any]]:
        """All entries of a directory."""
        entries: list[dict[str, Any]] = []
        query = {"limit": "10000", **({"recursive": "true"} if recursive else {}), **({"glob": glob} if glob else {})}
        where = quote(f"{path.strip('/')}/".lstrip("/"))
        while True:
            with self._remote.request("GET", f"{FILES}{where}?{urlencode(query)}", self._who) as response:
                page = json.loads(response.read())
            entries += page["entries"]
            if not page.get("cursor"):
                return entries
            query["cursor"] = page["cursor"]

    def put(self, source: Path, path: str) -> tuple[int, str]:
        """Upload a local file: its size and SHA-256, which the server has compared."""
        with source.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            digest = hashlib.file_digest(content, "sha256")
            content.seek(0)
            sent = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
            with _Watched(content, size, path) as body:
                more = {"Content-Length": str(size), "Content-Digest": sent}
                self._put(path, body, more)
        return size, digest.hexdigest()

    def put_stream(self, source: IO[bytes], path: str) -> tuple[int, str]:
        """Upload what a stream gives, to its end."""
        with _Watched(source, None, path) as body:
            self._put(path, body, {"Transfer-Encoding": "chunked"})
        self._compare(path, body.sha256)
        return body.size, body.sha256.hex()

    def _put(self, path: str, body: Any, more: dict[str, str]) -> None:
        kind = {"Content-Type": "application/octet-stream"}
        self._remote.request("PUT", FILES + quote(path), self._who, body, **kind, **more).close()

    def get(self, path: str, target: Path, archive: str | None) -> tuple[int, str]:
        """Download to a local file, whole or not at all, or into a device or pipe: its size and SHA-256."""
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                return self.copy_out(path, file, archive)
        partial = target.with_name(f".{target.name}.part")
        try:
            with partial.open("wb") as file:
                done = self.copy_out(path, file, archive)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return done

    def copy_out(self, path: str, target: IO[bytes], archive: str | None = None) -> tuple[int, str]:
        """Download into an open file: the size and SHA-256 of what came."""
        query = f"?{urlencode({'archive': archive})}" if archive else ""
        if path.endswith("/") and not archive:
            raise CommandError(f"{path} is a directory: download it with --archive zip or tar.gz")
        with self._remote.request("GET", FILES + quote(path) + query, self._who) as response:
            expected = response.headers.get("Content-Length")
            size = None if expected is None else int(expected)
            with _Watched(response, size, path) as body:
                while piece := body.read(PIECE):
                    target.write(piece)
        target.flush()
        if size not in (None, body.size):
            raise CommandError(f"the download broke off after {body.size} of {size} bytes: try again", Exit.UNAVAILABLE)
        if not archive:
            self._compare(path, body.sha256, response.headers.get("ETag"))
        return body.size, body.sha256.hex()

    def delete(self, path: str, recursive: bool) -> None:
        """Delete a file, or with `recursive` a directory."""
        query = "?recursive=true" if recursive else ""
        self._remote.request("DELETE", FILES + quote(path) + query, self._who).close()

    def _compare(self, path: str, sha256: bytes, tag: str | None = None) -> None:
        """Raises CommandError where the server has something else; a file that was changed meanwhile has no match."""
        wanted = {"Want-Repr-Digest": "sha-256=10"}
        with self._remote.request("HEAD", FILES + quote(path), self._who, None, **wanted) as response:
            theirs = response.headers.get(DIGEST)
            changed = tag is not None and response.headers.get("ETag") != tag
        if theirs is not None and not changed and theirs != f"sha-256=:{base64.b64encode(sha256).decode()}:":
            raise CommandError(f"{path}: what arrived is not what was sent: try again", Exit.UNAVAILABLE)


class _Watched:
    """A stream that is hashed, counted, and shown by a bar on a terminal, as it is read."""

    def __init__(self, source: _Source, size: int | None, title: str) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self._bar = _bar(size, title)
        self.size = 0

    @property
    def sha256(self) -> bytes:
        """Of what was read so far."""
        return self._hash.digest()

    def __enter__(self) -> _Watched:
        self._advance = self._bar.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._bar.__exit__(*raised)

    def read(self, size: int = -1) -> bytes:
        """As of any stream; http.client asks for little at a time, and gets more."""
        piece = self._source.read(max(size, PIECE) if size > 0 else size)
        self._hash.update(piece)
        self.size += len(piece)
        self._advance(len(piece))
        return piece


@contextmanager
def _bar(size: int | None, title: str) -> Iterator[Any]:
    if not sys.stderr.isatty() or (size is not None and size < WATCHED_FROM):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(title), total=size)
        yield lambda more: progress.advance(task, more)
