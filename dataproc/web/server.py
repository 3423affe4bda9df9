"""uvicorn's HTTP protocol, with the peer of a unix socket, and with a reply's head and body in one packet."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_UCRED = struct.Struct("iII")  # pid, uid, gid


class PeerProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=PeerProtocol)`: over a unix socket `client` is `unix:<uid>`, as the kernel says."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", Corked(transport, self.loop)))
        connection = cast("socket.socket | None", transport.get_extra_info("socket"))
        if self.client is None and connection is not None and connection.family == socket.AF_UNIX:
            _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            self.client = (f"unix:{uid}", 0)


class Corked:
    """A transport that joins what is written within one turn of the event loop.

    uvicorn writes the head of a reply and its body apart, and the loop sends each at once: two system calls, two
    packets, and a client that wakes for half a reply.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send within this turn of the loop."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
