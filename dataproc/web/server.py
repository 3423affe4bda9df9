"""uvicorn's HTTP protocol, with the peer of a unix socket, a reply's head and body in one packet, and files sent
by the kernel."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dataproc.web.sending import KERNEL_SENDS, FilePart

_UCRED = struct.Struct("iII")  # pid, uid, gid
_EXTENSIONS: dict[str, dict[object, object]] = {KERNEL_SENDS: {}}


class PeerProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=PeerProtocol)`: over a unix socket `client` is `unix:<uid>`, as the kernel says."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._corked = Corked(transport, self.loop)
        super().connection_made(cast("asyncio.Transport", self._corked))
        self._plain = transport.get_extra_info("ssl_object") is None
        connection = cast("socket.socket | None", transport.get_extra_info("socket"))
        if self.client is None and connection is not None and connection.family == socket.AF_UNIX:
            _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            self.client = (f"unix:{uid}", 0)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._plain:
            self.scope["extensions"] = _EXTENSIONS

    def connection_lost(self, exc: Exception | None) -> None:
        self._corked.lost()
        super().connection_lost(exc)


class Corked:
    """A transport that joins what is written within one turn of the event loop.

    uvicorn writes the head of a reply and its body apart, and the loop sends each at once: two system calls, two
    packets, and a client that wakes for half a reply.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []
        self._file: asyncio.Task[None] | None = None  # a file that is being sent; what is written meanwhile is held
        self._closing = False

    def write(self, data: bytes | FilePart) -> None:
        """Send within this turn of the loop, or a file as fast as the client takes it."""
        if type(data) is FilePart:
            self._flush()
            self._file = self._loop.create_task(self._send(data))
            return
        if not self._held and self._file is None:
            self._loop.call_soon(self._flush)
        self._held.append(cast("bytes", data))

    def close(self) -> None:
        """Send what is held, and close."""
        self._closing = True
        if self._file is None:
            self._flush()
            self._transport.close()

    def lost(self) -> None:
        """Nobody is there any more."""
        if self._file is not None:
            self._file.cancel()

    async def _send(self, part: FilePart) -> None:
        try:
            await part.send(self._transport)
        except (OSError, EOFError):
            self._transport.abort()  # the only way left to tell
        finally:
            self._file = None
            if not part.done.done():  # else whoever waited for it has gone
                part.done.set_result(None)
            self.close() if self._closing else self._flush()

    def _flush(self) -> None:
        if self._held and self._file is None:
            held, self._held = self._held, []
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
