"""The few raw ASGI moves that the JSON-RPC endpoints need: read a bounded body, name a request, reply."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from typing import Final

from starlette.types import Receive, Send

from dataproc.errors import DataprocError, Interrupted, InvalidRequest, Overloaded, StorageUnavailable, TooLarge

RawHeaders = list[tuple[bytes, bytes]]

REQUEST_ID_OF_REPLY: Final = "dataproc.request_id"  # in the scope
CHALLENGE: Final = b'Bearer realm="dataproc", APIKey realm="dataproc"'
_REQUEST_ID = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")
_JSON_TYPE = re.compile(rb"(?:application/json|application/json-rpc|application/jsonrequest|[\w.*-]+/[\w.-]+\+json)")


class MethodNotAllowed(InvalidRequest):
    """Something else than POST."""

    http_status = 405


class UnsupportedType(InvalidRequest):
    """A body that is declared to be no JSON."""

    http_status = 415


class DisconnectedError(Exception):
    """The client went away before its request was whole."""


def request_id_of(sent: bytes | None) -> str:
    """The client's own request id where it is printable and at most 128 characters long, else a new one."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return os.urandom(16).hex()


def require_json(content_type: bytes | None) -> None:
    """UnsupportedType for a body that is declared to be something else; one that declares nothing is believed."""
    if content_type is None or content_type == b"application/json":
        return
    named = content_type.partition(b";")[0].strip().lower()
    if not _JSON_TYPE.fullmatch(named):
        shown = named[:100].decode("ascii", "replace")
        raise UnsupportedType(f"the body is declared to be {shown}; add the header `Content-Type: application/json`")


async def read_body(receive: Receive, content_length: bytes | None, limit: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is clear that it is, whatever Content-Length said."""
    if content_length is not None and content_length.isdigit() and int(content_length[:20]) > limit:
        raise _too_large(limit, int(content_length[:20]))
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks) if len(chunks) > 1 else chunk


async def respond(send: Send, status: int, headers: RawHeaders, body: bytes = b"") -> None:
    """One whole reply, `headers` as they are but for the length of the body."""
    if status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def refusal_headers(error: DataprocError) -> Iterable[tuple[bytes, bytes]]:
    """What HTTP wants to be said with the status of a refusal."""
    if error.http_status == 401:
        yield b"www-authenticate", CHALLENGE
    if error.http_status == 405:
        yield b"allow", b"POST"
    retry_after = error.data.get("retry_after", 1 if isinstance(error, (Overloaded, StorageUnavailable)) else None)
    if isinstance(retry_after, (int, float)):
        yield b"retry-after", b"%d" % max(1, math.ceil(retry_after))


def status_of(error: DataprocError) -> int:
    """The HTTP status of a request that is refused as a whole."""
    if isinstance(error, Overloaded) and error.data.get("limit") == "request_rate":
        return 429
    return error.http_status


def cut_off() -> Interrupted:
    """What a request is told that was still under way when the server had waited long enough with its stop."""
    return Interrupted("the server stopped under the request; send it again")


def _too_large(limit: int, size: int | None = None) -> TooLarge:
    known = {} if size is None else {"size": size}
    has = "more" if size is None else f"{size} bytes"
    return TooLarge(f"a body may have {limit} bytes (DATAPROC_REQUEST_LIMIT), this one has {has}", limit=limit, **known)
