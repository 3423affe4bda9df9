"""`/api/v1/dataproc/files/…`: the session directory over plain HTTP.

What modules wrote is trusted by nobody: it is served under types that no browser runs, and sandboxed. Bytes go
through in large chunks, read and written in threads, never whole in memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from urllib.parse import quote, unquote_to_bytes

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from dataproc.access.scopes import require
from dataproc.errors import InvalidParams, InvalidRequest
from dataproc.storage.files import Entry, Reading
from dataproc.storage.listing import MAX_LIMIT, Listing, Selection
from dataproc.storage.paths import RelPath, decode_path, read_path
from dataproc.storage.workspace import Workspace, Workspaces
from dataproc.types import Principal, rfc3339
from dataproc.web.auth import principal_of
from dataproc.web.conditional import (
    RangeNotSatisfiable,
    byte_range,
    last_modified,
    not_modified,
    sent_sha256,
    write_condition,
)
from dataproc.web.media_types import media_type
from dataproc.web.refusals import envelope

if TYPE_CHECKING:
    from dataproc.composition import System

PREFIX = "/api/v1/dataproc/files/"
CHUNK = 512 * 1024  # bytes read or written at once

SAFETY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox",
    "Cache-Control": "private, no-cache",  # a token in a header of our own tells no cache that the answer is private
}

router = APIRouter(tags=["files"])


class FileEntry(BaseModel):
    """One entry of a directory."""

    name: str
    path: str
    type: Literal["file", "directory", "link", "other"]
    size: int
    modified: str
    etag: str


class FileListing(BaseModel):
    """One page of a directory; `cursor` asks for the next one."""

    path: str
    entries: list[FileEntry]
    cursor: str | None


async def _workspace(request: Request, scope: str) -> Workspace:
    """The workspace of the caller's session. Raises what authentication raises, Forbidden, InvalidRequest."""
    principal: Principal = await principal_of(request)
    require(principal, scope)
    if principal.session is None:
        raise InvalidRequest("files belong to a session: send its token in the header Xdata-Session-Token")
    system = cast("System", request.app.state.system)
    await system.sessions.live(principal.session)
    workspaces: Workspaces = system.workspaces
    return workspaces.of(principal.session)


async def _to_read(request: Request) -> Workspace:
    return await _workspace(request, "files.read")


async def _to_write(request: Request) -> Workspace:
    return await _workspace(request, "files.write")


def client_path(
    request: Request, path: Annotated[str, Path(description="Below the session directory; a directory ends in `/`.")]
) -> RelPath:
    """The path below `/files/` as it was sent. Raises InvalidParams.

    From the raw bytes: the decoded path of the server has already lost what was no UTF-8.
    """
    _, found, raw = request.scope.get("raw_path", b"").partition(PREFIX.encode())
    if found:
        return decode_path(unquote_to_bytes(raw.partition(b"?")[0]))
    return read_path(path)


ToRead = Annotated[Workspace, Depends(_to_read)]
ToWrite = Annotated[Workspace, Depends(_to_write)]
ClientPath = Annotated[RelPath, Depends(client_path)]


def _selection(
    recursive: Annotated[bool, Query(description="List what lies in directories below, too.")] = False,
    glob: Annotated[str | None, Query(description="Only names, or with a `/` in it paths, that match.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries of a page.")] = MAX_LIMIT,
    cursor: Annotated[str | None, Query(description="From the page before.")] = None,
) -> Selection:
    return Selection(recursive, glob, limit, cursor)


_READ_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": FileListing,
        "content": {"application/octet-stream": {}},
        "description": "A file's bytes; for a path that ends in `/`, a listing",
    },
    206: {"description": "The bytes of `Range`"},
    304: {"description": "The file that `If-None-Match` names"},
}


@router.head(PREFIX + "{path:path}", response_class=Response, summary="What a file is, without its bytes")
@router.get(PREFIX + "{path:path}", response_class=Response, responses=_READ_ANSWERS, summary="Read a file, or list")
async def read(
    request: Request, workspace: ToRead, path: ClientPath, selection: Annotated[Selection, Depends(_selection)]
) -> Response:
    """The bytes of a file, or, for a path that ends in `/`, the entries of a directory."""
    if path.directory:
        listing = await workspace.list(path, selection)
        return Response(await asyncio.to_thread(_rendered, listing), media_type="application/json", headers=SAFETY)
    reading = await workspace.read(path)
    answer = None
    try:
        answer = _file_answer(request, reading)
    finally:
        if not isinstance(answer, FileStream):
            reading.close()
    return answer


@router.put(
    PREFIX + "{path:path}",
    status_code=201,
    response_class=Response,
    responses={
        204: {"description": "It replaced a file"},
        412: {"description": "`If-Match` or `If-None-Match` forbids"},
    },
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    summary="Write a file",
)
async def write(request: Request, workspace: ToWrite, path: ClientPath) -> Response:
    """The body becomes the file, whole or not at all: 201 for a new one, 204 for one that was there."""
    if "content-range" in request.headers:
        raise InvalidParams.field("Content-Range", "a part of a file cannot be put; send all of it")
    condition, sha256 = write_condition(request.headers), sent_sha256(request.headers)
    try:
        written = await workspace.write(path, _chunks(request), condition, sha256)
    except ClientDisconnect:
        return Response(status_code=400)  # for nobody: the client has gone, and nothing was kept
    headers = {"ETag": written.entry.etag, "Last-Modified": last_modified(written.entry)}
    if written.created:
        headers["Location"] = quote(PREFIX + str(written.entry.path))
    return Response(status_code=201 if written.created else 204, headers=headers)


@router.delete(PREFIX + "{path:path}", status_code=204, response_class=Response, summary="Delete a file")
async def delete(request: Request, workspace: ToWrite, path: ClientPath, recursive: bool = False) -> Response:
    """Deletes a file, or with `recursive` a directory and all that is in it."""
    await workspace.delete(path, write_condition(request.headers), recursive=recursive)
    return Response(status_code=204)


class FileStream(Response):
    """A file, or a part of it, in chunks. Closes the file."""

    def __init__(self, reading: Reading, part: range | None) -> None:
        self.reading = reading
        self.part = range(reading.entry.size) if part is None else part
        super().__init__(status_code=200 if part is None else 206, headers=_about(reading.entry))
        self.headers["Content-Length"] = str(len(self.part))
        if part is not None:
            self.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{reading.entry.size}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                await self._send_part(send, gone)
            await send({"type": "http.response.body", "body": b""})
        except BaseException:
            await asyncio.to_thread(self.reading.close)  # a read that was left behind may still hold it
            raise
        finally:
            gone.cancel()
        self.reading.close()

    async def _send_part(self, send: Send, gone: asyncio.Task[None]) -> None:
        at = self.part.start
        while at < self.part.stop and not gone.done():
            body = await asyncio.to_thread(self.reading.pread, min(CHUNK, self.part.stop - at), at)
            if not body:
                # cut short by its writer: breaking the connection is the only way left to tell
                raise EOFError("the file became shorter while it was sent")
            at += len(body)
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _file_answer(request: Request, reading: Reading) -> Response:
    entry = reading.entry
    if not_modified(request.headers, entry):
        return Response(status_code=304, headers=_about(entry))
    try:
        return FileStream(reading, byte_range(request.headers, entry))
    except RangeNotSatisfiable as error:
        answer = envelope(request, error, error.http_status)
        answer.headers["Content-Range"] = f"bytes */{entry.size}"
        return answer


def _about(entry: Entry) -> dict[str, str]:
    return {
        "ETag": entry.etag,
        "Last-Modified": last_modified(entry),
        "Accept-Ranges": "bytes",
        "Content-Type": media_type(entry.path),
        **SAFETY,
    }


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces that are worth a thread's time."""
    waiting: list[bytes] = []
    size = 0
    async for piece in request.stream():
        waiting.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if size:
        yield b"".join(waiting)


def _rendered(listing: Listing) -> bytes:
    entries = [_shown(entry) for entry in listing.entries]
    return json.dumps({"path": listing.path, "entries": entries, "cursor": listing.cursor}).encode()


def _shown(entry: Entry) -> dict[str, str | int]:
    return {
        "name": entry.path.rpartition("/")[2],
        "path": entry.path,
        "type": entry.type,
        "size": entry.size,
        "modified": rfc3339(datetime.fromtimestamp(entry.modified / 10**9, UTC)),
        "etag": entry.etag,
    }
