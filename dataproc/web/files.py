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
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect

from dataproc.access.scopes import require
from dataproc.errors import InvalidParams, InvalidRequest
from dataproc.media_types import media_type
from dataproc.storage.archive import Kind
from dataproc.storage.files import Entry, Reading
from dataproc.storage.listing import MAX_LIMIT, PAGE, Listing, Selection
from dataproc.storage.paths import RelPath, decode_path, read_path
from dataproc.storage.workspace import Workspace
from dataproc.types import Principal, rfc3339
from dataproc.web.auth import by_proxy, principal_of
from dataproc.web.conditional import (
    RangeNotSatisfiable,
    byte_range,
    combined,
    last_modified,
    not_modified,
    repr_digest,
    sent_sha256,
    wants_sha256,
    write_condition,
)
from dataproc.web.refusals import REFUSALS, Refusal, envelope
from dataproc.web.transfer import ArchiveStream, FileStream, chunks

if TYPE_CHECKING:
    from dataproc.composition import System

PREFIX = "/api/v1/dataproc/files/"

SAFETY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox",
    "Cache-Control": "private, no-cache",  # a token in a header of our own tells no cache that the answer is private
}

ARCHIVES: dict[Kind, str] = {"zip": "application/zip", "tar.gz": "application/gzip"}


class _AnyConvertor(Convertor[str]):
    """`path` of Starlette ends at the first line break, which the name of a file may have."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", _AnyConvertor())
router = APIRouter(tags=["files"], responses=REFUSALS)


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


async def _workspace(request: Request, scope: str) -> AsyncIterator[Workspace]:
    """The workspace of the caller's session, which is in use until the answer is sent.

    Raises what authentication raises, Forbidden, InvalidRequest.
    """
    principal: Principal = await principal_of(request)
    require(principal, scope)
    if principal.session is None:
        raise InvalidRequest("files belong to a session: send its token in the header Xdata-Session-Token")
    system = _system(request)
    await system.sessions.live(principal.session)
    system.sessions.enter(principal.session)
    try:
        yield system.workspaces.of(principal.session, principal.key)
    finally:
        system.sessions.leave(principal.session)


def _headers(request: Request) -> dict[str, str]:
    return combined(request.headers.items())


def _system(request: Request) -> System:
    return cast("System", request.app.state.system)


async def _to_read(request: Request) -> AsyncIterator[Workspace]:
    async for workspace in _workspace(request, "files.read"):
        yield workspace


async def _to_write(request: Request) -> AsyncIterator[Workspace]:
    async for workspace in _workspace(request, "files.write"):
        yield workspace


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
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Entries of a page.")] = PAGE,
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


@router.head(PREFIX + "{path:any}", response_class=Response, summary="What a file is, without its bytes")
@router.get(PREFIX + "{path:any}", response_class=Response, responses=_READ_ANSWERS, summary="Read a file, or list")
async def read(
    request: Request,
    workspace: ToRead,
    path: ClientPath,
    selection: Annotated[Selection, Depends(_selection)],
    archive: Annotated[Kind | None, Query(description="The directory and all below it, as one archive.")] = None,
) -> Response:
    """The bytes of a file, or, for a path that ends in `/`, the entries of a directory, or it as an archive."""
    if archive is not None:
        return await _archive(workspace, path, archive, selection.glob)
    if path.directory:
        listing = await workspace.list(path, selection)
        return Response(await asyncio.to_thread(_rendered, listing), media_type="application/json", headers=SAFETY)
    reading = await workspace.read(path)
    answer = None
    try:
        wanted = wants_sha256(_headers(request))
        told = {"Repr-Digest": repr_digest(await _system(request).workspaces.hashing.sha256(reading))} if wanted else {}
        answer = _file_answer(request, workspace, path, reading)
        answer.headers.update(told)
    finally:
        if not isinstance(answer, FileStream):
            reading.close()
    return answer


async def _archive(workspace: Workspace, path: RelPath, kind: Kind, glob: str | None) -> Response:
    if not path.directory:
        raise InvalidParams.field("archive", "is of a directory, the path of which ends in /")
    name = f"{path.names[-1] if path.names else 'session'}.{kind}"
    told = {"Content-Type": ARCHIVES[kind], "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, '')}"}
    return ArchiveStream(await workspace.archive(path, kind, glob), {**told, **SAFETY})


@router.put(
    PREFIX + "{path:any}",
    status_code=201,
    response_class=Response,
    responses={
        204: {"description": "It replaced a file"},
        412: {"model": Refusal, "description": "`If-Match` or `If-None-Match` forbids"},
        413: {"model": Refusal, "description": "Larger than a file may be"},
        507: {"model": Refusal, "description": "A quota of the session or its key is used up"},
    },
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    summary="Write a file",
)
async def write(request: Request, workspace: ToWrite, path: ClientPath) -> Response:
    """The body becomes the file, whole or not at all: 201 for a new one, 204 for one that was there."""
    if "content-range" in request.headers:
        raise InvalidParams.field("Content-Range", "a part of a file cannot be put; send all of it")
    headers = _headers(request)
    condition, sha256 = write_condition(headers), sent_sha256(headers)
    try:
        body = chunks(request, _system(request).settings.upload_limit)
        written = await workspace.write(path, body, condition, sha256, _announced(request))
    except ClientDisconnect:
        return Response(status_code=400)  # for nobody: the client has gone, and nothing was kept
    told = {"ETag": written.entry.etag, "Last-Modified": last_modified(written.entry)}
    if written.created:
        told["Location"] = quote(PREFIX + str(written.entry.path))
    return Response(status_code=201 if written.created else 204, headers=told)


@router.delete(PREFIX + "{path:any}", status_code=204, response_class=Response, summary="Delete a file")
async def delete(request: Request, workspace: ToWrite, path: ClientPath, recursive: bool = False) -> Response:
    """Deletes a file, or with `recursive` a directory and all that is in it."""
    await workspace.delete(path, write_condition(_headers(request)), recursive=recursive)
    return Response(status_code=204)


def _file_answer(request: Request, workspace: Workspace, path: RelPath, reading: Reading) -> Response:
    entry, headers = reading.entry, _headers(request)
    if not_modified(headers, entry):
        return Response(status_code=304, headers=_about(entry))
    if (elsewhere := _by_the_proxy(request, workspace, path, reading)) is not None:
        told = {**_about(entry), "X-Accel-Redirect": elsewhere}
        del told["Accept-Ranges"]  # the proxy says so itself
        return Response(headers=told)
    try:
        return FileStream(reading, byte_range(headers, entry), _about(entry))
    except RangeNotSatisfiable as error:
        answer = envelope(request, error, error.http_status)
        answer.headers["Content-Range"] = f"bytes */{entry.size}"
        return answer


def _by_the_proxy(request: Request, workspace: Workspace, path: RelPath, reading: Reading) -> str | None:
    """Where the proxy that passed this request on finds the file, if it is to send it; it follows no links."""
    settings = _system(request).settings
    if settings.accel_prefix is None or request.method != "GET" or settings.local_storage is None:
        return None
    place = workspace.place(path, reading) if by_proxy(request.scope, settings) else None
    return None if place is None else quote(f"{settings.accel_prefix.rstrip('/')}/{place}")


def _announced(request: Request) -> int:
    """The size that the body will have; 0 where it is not told."""
    length = request.headers.get("content-length", "")
    return int(length[:19]) if length.isdigit() else 0


def _about(entry: Entry) -> dict[str, str]:
    return {
        "ETag": entry.etag,
        "Last-Modified": last_modified(entry),
        "Accept-Ranges": "bytes",
        "Content-Type": media_type(entry.path),
        **SAFETY,
    }


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
