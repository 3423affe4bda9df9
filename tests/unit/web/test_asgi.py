"""The raw ASGI moves: bounded bodies, request ids, content types, client addresses."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Message, Receive

from dataproc.errors import Overloaded, TooLarge, Unauthorized
from dataproc.web.asgi import (
    DisconnectedError,
    UnsupportedType,
    read_body,
    refusal_headers,
    request_id_of,
    require_json,
    status_of,
)
from dataproc.web.auth import client_address, networks, peer_of


def receiving(*chunks: bytes | None) -> Receive:
    messages: list[Message] = [
        {"type": "http.disconnect"}
        if chunk is None
        else {"type": "http.request", "body": chunk, "more_body": place < len(chunks) - 1}
        for place, chunk in enumerate(chunks)
    ]

    async def receive() -> Message:
        return messages.pop(0)

    return receive


async def test_a_body_in_chunks_is_whole() -> None:
    """Chunks are put together in order."""
    assert await read_body(receiving(b"ab", b"", b"c"), None, 3) == b"abc"


@pytest.mark.parametrize("declared", [None, b"2", b"junk"])
async def test_a_body_above_the_limit_is_refused_whatever_it_declared(declared: bytes | None) -> None:
    """A chunked body and one that lies about its length are cut off at the limit."""
    with pytest.raises(TooLarge):
        await read_body(receiving(b"ab", b"cd", b"e"), declared, 3)


@pytest.mark.parametrize("declared", [b"4", b"9" * 5000])
async def test_a_body_that_declares_too_much_is_not_read(declared: bytes) -> None:
    """The declared length is enough to refuse."""
    with pytest.raises(TooLarge):
        await read_body(receiving(), declared, 3)


async def test_a_client_that_leaves_is_noticed() -> None:
    """Half a body is no request."""
    with pytest.raises(DisconnectedError):
        await read_body(receiving(b"ab", None), None, 10)


@pytest.mark.parametrize("sent", [b"abc", b"a b", b"~" * 128, b"!"])
def test_a_printable_request_id_is_kept(sent: bytes) -> None:
    """What the client named its request is what the reply calls it."""
    assert request_id_of(sent) == sent.decode()


@pytest.mark.parametrize("sent", [None, b"", b" ", b"a\nb", b"a\x00", "é".encode(), b"a" * 129, b" a", b"a "])
def test_any_other_request_id_is_replaced(sent: bytes | None) -> None:
    """What could break a header or a log line is not echoed."""
    made = request_id_of(sent)
    assert len(made) == 32
    assert made != request_id_of(sent)


@pytest.mark.parametrize(
    "declared", [None, b"application/json", b"Application/JSON; charset=utf-8", b"application/vnd.api+json"]
)
def test_json_types_are_taken(declared: bytes | None) -> None:
    """JSON under any of its names, and a body that declares nothing."""
    require_json(declared)


@pytest.mark.parametrize(
    "declared", [b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"", b"text/plain"]
)
def test_other_types_are_told_what_to_send(declared: bytes) -> None:
    """The refusal names the header to add."""
    with pytest.raises(UnsupportedType, match="Content-Type: application/json") as caught:
        require_json(declared)
    assert status_of(caught.value) == 415


def test_headers_of_refusals() -> None:
    """401 says how to authenticate, an overload says when to come back, in whole seconds."""
    assert b"www-authenticate" in dict(refusal_headers(Unauthorized("no")))
    assert dict(refusal_headers(Overloaded("full", retry_after=0.2))) == {b"retry-after": b"1"}


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    return {
        "client": None if peer is None else (peer, 1),
        "headers": [(b"x-forwarded-for", each.encode()) for each in forwarded],
    }


@pytest.mark.parametrize(
    ("allowed", "peer", "forwarded", "client"),
    [
        ("", "10.0.0.1", ["1.2.3.4"], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6, 1.2.3.4, 10.9.9.9"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8", "9.9.9.9", ["1.2.3.4"], "9.9.9.9"),
        ("10.0.0.0/8", "10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.0/8", None, ["1.2.3.4"], ""),
        ("::1", "::1", ["1.2.3.4"], "1.2.3.4"),
    ],
)
def test_the_client_is_the_last_whom_no_trusted_proxy_speaks_for(
    allowed: str, peer: str | None, forwarded: list[str], client: str
) -> None:
    """A client cannot put words into the header that a trusted proxy appends to."""
    assert client_address(scope(peer, *forwarded), networks(allowed)) == client


def test_the_peer_is_the_socket_s() -> None:
    """Whatever is forwarded, trust in a gateway looks at the socket."""
    assert peer_of(scope("10.0.0.1", "127.0.0.1")) == "10.0.0.1"
