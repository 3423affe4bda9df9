"""uvicorn's HTTP protocol, which also tells who is at the other end of a unix socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_UCRED = struct.Struct("iII")  # pid, uid, gid


class PeerProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=PeerProtocol)`: over a unix socket `client` is `unix:<uid>`, as the kernel says."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = cast("socket.socket | None", transport.get_extra_info("socket"))
        if self.client is None and connection is not None and connection.family == socket.AF_UNIX:
            _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            self.client = (f"unix:{uid}", 0)
