"""Open files of a session: read as they come in, written when they are closed."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any

from dataproc_client.errors import ConnectionLost
from dataproc_client.transport import Response, translated

RESUMED = 5  # times that a transfer which broke off goes on where it was, each after some progress
HELD = 16 << 20  # bytes of a file that is being written that are held in memory; the rest is in a temporary file

From = Callable[[int, "str | None"], Response]
"""The file from an offset on, if it still has that ETag: a reply whose body is to be read."""


class Incoming(io.RawIOBase):
    """A file as it comes in. What breaks off goes on where it was, while the file is the same."""

    def __init__(self, ask: From) -> None:
        self._ask = ask
        self._at = 0
        self._left = RESUMED
        self._reply = ask(0, None)
        self.etag: str | None = self._reply.headers.get("ETag")
        length = self._reply.headers.get("Content-Length")
        self.size = None if length is None or "Content-Encoding" in self._reply.headers else int(length)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes. Raises ConnectionLost where the rest cannot be had."""
        while True:
            try:
                with translated(repeatable=True):
                    piece = self._reply.read(len(buffer))
                break
            except ConnectionLost:
                self._go_on()
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _go_on(self) -> None:
        if self.etag is None or self._left == 0 or self.size is None or not self._at:
            raise
        self._left -= 1
        self._reply.close()
        self._reply = self._ask(self._at, self.etag)
        if self._reply.status != 206:
            raise ConnectionLost("the file was changed while it was read", retryable=True)

    def close(self) -> None:
        """Let go of the connection."""
        self._reply.close()
        super().close()


class Outgoing(io.BufferedIOBase):
    """A file that is being written. It is sent when it is closed; left by an error, it is not."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._held = tempfile.SpooledTemporaryFile(HELD)  # noqa: SIM115 - closed with this

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is, as long as it is not closed."""
        return True

    def write(self, data: Any) -> int:
        """Append."""
        return self._held.write(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go elsewhere in it."""
        return self._held.seek(offset, whence)

    def tell(self) -> int:
        """Where in it we are."""
        return self._held.tell()

    def close(self) -> None:
        """Send it."""
        if self.closed:
            return
        try:
            self._held.seek(0)
            self._send(self._held)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget it unsent."""
        self._held.close()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close() if kind is None else self.discard()

    def __del__(self) -> None:
        """Forgotten open, it is not sent: nobody said that it was whole."""
        self.discard()


class OutgoingText(io.TextIOWrapper):
    """The same for text."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and isinstance(self.buffer, Outgoing):
            self.buffer.discard()
            return
        self.close()
