"""Bytes on their way: files and archives out, bodies in, in pieces that are worth a thread's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from dataproc.errors import TooLarge
from dataproc.storage.archive import Archive
from dataproc.storage.files import Reading
from dataproc.web.sending import KERNEL_SENDS, FilePart

CHUNK = 1024 * 1024  # bytes read or written at once


class FileStream(Response):
    """A file, or a part of it. Closes the file."""

    def __init__(self, reading: Reading, part: range | None, headers: Mapping[str, str]) -> None:
        self.reading = reading
        self.part = range(reading.entry.size) if part is None else part
        super().__init__(status_code=200 if part is None else 206, headers=headers)
        self.headers["Content-Length"] = str(len(self.part))
        if part is not None:
            self.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{reading.entry.size}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD" and self.part:
                if KERNEL_SENDS in scope.get("extensions", {}):
                    await self._have_sent(send, gone)
                else:
                    await self._send_chunks(send, gone)
            await send({"type": "http.response.body", "body": b""})
        except BaseException:
            await asyncio.to_thread(self.reading.close)  # a read that was left behind may still hold it
            raise
        finally:
            gone.cancel()
        self.reading.close()

    async def _have_sent(self, send: Send, gone: asyncio.Task[None]) -> None:
        part = FilePart(self.reading, self.part)
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.wait([part.done, gone], return_when=asyncio.FIRST_COMPLETED)

    async def _send_chunks(self, send: Send, gone: asyncio.Task[None]) -> None:
        at = self.part.start
        while at < self.part.stop and not gone.done():
            body = await asyncio.to_thread(self.reading.pread, min(CHUNK, self.part.stop - at), at)
            if not body:
                # cut short by its writer: breaking the connection is the only way left to tell
                raise EOFError("the file became shorter while it was sent")
            at += len(body)
            await send({"type": "http.response.body", "body": body, "more_body": True})


class ArchiveStream(Response):
    """A directory as an archive. Its length is not known before its end."""

    def __init__(self, archive: Archive, headers: Mapping[str, str]) -> None:
        self.archive = archive
        super().__init__(headers=headers)
        del self.headers["Content-Length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while scope["method"] != "HEAD" and not gone.done():
                if not (body := await asyncio.to_thread(self.archive.read)):
                    break
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            await asyncio.to_thread(self.archive.close)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in large pieces. Raises TooLarge as soon as it is clear that it is."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit, int(announced[:20]))
    waiting: list[bytes] = []
    size = total = 0
    async for piece in request.stream():
        waiting.append(piece)
        size, total = size + len(piece), total + len(piece)
        if total > limit:
            raise _too_large(limit)
        if size >= CHUNK:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if size:
        yield b"".join(waiting)


def _too_large(limit: int, size: int | None = None) -> TooLarge:
    told = f"a file may have {limit} bytes (DATAPROC_UPLOAD_LIMIT)"
    return TooLarge(told, limit=limit) if size is None else TooLarge(told, limit=limit, size=size)
