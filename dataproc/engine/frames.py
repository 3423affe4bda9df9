"""Frames between the server and its processes: a length in 4 bytes, big-endian, then JSON. Never pickle.

Standard library only: the zygote and the worker import this. Descriptors travel beside a frame, and only towards the
worker: the server reads frames with `decoder.Decoder`, which takes no descriptors.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

HEADER = struct.Struct(">I")
MAX_CONTROL = 16 * 2**20
MAX_DESCRIPTORS = 16


class FrameError(Exception):
    """What came is no frame: too long, cut off, no JSON object, or too deep."""


def encode(message: dict[str, Any]) -> bytes:
    """The frame of `message`."""
    return frame(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def frame(body: bytes) -> bytes:
    """The frame around a body that is JSON already."""
    return HEADER.pack(len(body)) + body


def send(sock: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """Send one frame on a blocking socket; the descriptors travel with its first byte."""
    data = encode(message)
    sent = 0
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sent = sock.sendmsg([data], rights)
    if sent < len(data):  # sending nothing is an error too, once the reader has what it wanted and hung up
        sock.sendall(data[sent:])


def receive(sock: socket.socket, limit: int = MAX_CONTROL) -> tuple[dict[str, Any], list[int]] | None:
    """The next frame of a blocking socket with the descriptors that came with it; None at the end of the stream."""
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    head, ancillary, _, _ = sock.recvmsg(HEADER.size, space, socket.MSG_CMSG_CLOEXEC)
    if not head:
        return None
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % 4])
    head += _exactly(sock, HEADER.size - len(head))
    (size,) = HEADER.unpack(head)
    if size > limit:
        raise FrameError(f"a frame of {size} bytes, the limit is {limit}")
    return read(_exactly(sock, size)), list(descriptors)


def listen(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """The frames of a blocking socket whose other end is trusted, without descriptors, until it is closed."""
    buffer = b""
    while data := sock.recv(2**16):
        buffer += data
        while len(buffer) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(buffer)[0]
            if len(buffer) < end:
                buffer += _exactly(sock, end - len(buffer))
            body, buffer = buffer[HEADER.size : end], buffer[end:]
            yield read(body)


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = sock.recv(min(size, 2**20))
        if not part:
            raise FrameError("the stream ended inside a frame")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read(body: bytes) -> dict[str, Any]:
    """What the body of a frame says. Raises FrameError."""
    try:
        message = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise FrameError(f"no JSON: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise FrameError("no JSON object")
    return message
