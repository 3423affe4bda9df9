"""A part of a file as the body of a reply, sent by the kernel itself where nothing has to be done to its bytes."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from dataproc.storage.files import Reading

KERNEL_SENDS: Final = "dataproc.sendfile"  # in the scope's extensions where a FilePart may be sent as a body
_DRAINED = 0.002  # seconds between looks at what the transport still holds of an earlier reply


class FilePart:
    """The bytes `part` of an open file, in the place of `bytes` in an ASGI message; `done` when they are on the way.

    Only for the transport of `web.server`: zero-copy sending from a thread, as a read may have to wait for the disk.
    """

    def __init__(self, reading: Reading, part: range) -> None:
        self._reading = reading
        self._part = part
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __len__(self) -> int:
        return len(self._part)

    async def send(self, transport: asyncio.Transport) -> None:
        """Send all of it over the transport's socket. Raises OSError, EOFError; nothing once the transport closes."""
        while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(_DRAINED)
        if transport.is_closing():
            return
        connection: socket.socket = transport.get_extra_info("socket")
        out = os.dup(connection.fileno())  # the transport may close its own under us
        pushing: asyncio.Future[int] | None = None
        try:
            at = self._part.start
            while at < self._part.stop and not transport.is_closing():
                pushing = asyncio.ensure_future(asyncio.to_thread(self._reading.push, out, at, self._part.stop))
                at = await asyncio.shield(pushing)
                if at < self._part.stop:
                    await _writable(out)
        finally:
            if pushing is None or pushing.done():
                os.close(out)
            else:
                pushing.add_done_callback(lambda _: os.close(out))


async def _writable(out: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(out, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(out)
